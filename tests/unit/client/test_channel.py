"""Which calls a channel repeats by itself."""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from modelyard._channel import _NEVER_RETRIED
from modelyard.artifact.v1 import artifact_service_pb2, storage_service_pb2
from modelyard.builder.v1 import build_service_pb2
from modelyard.deployer.v1 import deployment_service_pb2
from modelyard.metadata.v1 import model_service_pb2, run_service_pb2

FILES: list[FileDescriptor] = [
    artifact_service_pb2.DESCRIPTOR,
    storage_service_pb2.DESCRIPTOR,
    build_service_pb2.DESCRIPTOR,
    deployment_service_pb2.DESCRIPTOR,
    model_service_pb2.DESCRIPTOR,
    run_service_pb2.DESCRIPTOR,
]


def test_no_stream_is_repeated_by_grpc() -> None:
    streams = {
        (service.full_name, method.name)
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }
    assert streams
    assert streams - set(_NEVER_RETRIED) == set()
