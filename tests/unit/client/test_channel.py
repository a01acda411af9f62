"""Which calls a channel repeats by itself."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from modelyard._transport.channel import _NEVER_RETRIED

PROTOS = Path(__file__).parents[3] / "protos/modelyard.binpb"


def test_no_stream_is_repeated_by_grpc() -> None:
    streams = {
        (f"{file.package}.{service.name}", method.name)
        for file in FileDescriptorSet.FromString(PROTOS.read_bytes()).file
        for service in file.service
        for method in service.method
        if method.client_streaming or method.server_streaming
    }
    assert streams
    assert streams - set(_NEVER_RETRIED) == set()
