"""The hand-written messages are the ones of the protos, whatever they hold."""

from __future__ import annotations

import os

import pytest
from google.protobuf.message import DecodeError
from modelyard._transfers import wire as _wire
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as pb

DATA = [b"a", b"b" * 127, b"c" * 128, os.urandom(300_000), os.urandom(1024 * 1024)]


@pytest.mark.parametrize("parent", ["", "projects/default"])
@pytest.mark.parametrize("count", range(len(DATA) + 1))
def test_chunks_are_written_and_read_as_protobuf_does(parent: str, count: int) -> None:
    chunks = [_wire.Chunk(bytes([n]) * 32, data) for n, data in enumerate(DATA[:count])]
    same = pb.WriteChunksRequest(
        parent=parent, chunks=[pb.Chunk(digest=c.digest, data=bytes(c.data)) for c in chunks]
    )
    raw = _wire.write_chunks(parent, chunks)
    assert raw == same.SerializeToString()
    assert _wire.read_chunks(raw) == _wire.Chunks(parent, chunks)


@pytest.mark.parametrize(
    "message",
    [
        pb.WriteChunksRequest(chunks=[pb.Chunk(digest=b"d" * 32)]),
        pb.WriteChunksRequest(chunks=[pb.Chunk(data=b"x")]),
        pb.WriteChunksRequest(chunks=[pb.Chunk()]),
    ],
)
def test_unusual_chunks_are_left_to_protobuf(message: pb.WriteChunksRequest) -> None:
    unknown = b"\x1a\x03new"  # a field that this version does not know
    for raw in (message.SerializeToString(), message.SerializeToString() + unknown):
        found = _wire.read_chunks(raw)
        assert [(c.digest, c.data) for c in found.chunks] == [
            (c.digest, c.data) for c in message.chunks
        ]


def test_what_is_no_message_is_refused() -> None:
    whole = _wire.write_chunks("projects/default", [_wire.Chunk(b"d" * 32, b"data" * 100)])
    for raw in (whole[:-1], whole[:30], b"\x12", b"\x12\xff", b"\x0a\x02\xff\xff", b"\x07"):
        with pytest.raises(DecodeError):
            _wire.read_chunks(raw)


@pytest.mark.parametrize("data", DATA)
def test_file_data_is_written_and_read_as_protobuf_does(data: bytes) -> None:
    raw = _wire.write_file_data(memoryview(data))
    assert raw == pb.ReadFileResponse(data=data).SerializeToString()
    assert _wire.read_file_data(raw) == data


def test_a_message_with_the_file_has_no_data() -> None:
    first = pb.ReadFileResponse(file=artifact_pb2.File(path="a", size_bytes=1))
    assert _wire.read_file_data(first.SerializeToString()) == b""
    assert _wire.read_file_data(b"") == b""


def test_files_are_written_and_read_as_protobuf_does() -> None:
    files = {"": b"x", "a": b"", "日本/é.txt": b"data", **{str(len(d)): d for d in DATA}}
    same = pb.ReadFilesResponse(
        files=[pb.FileContent(path=path, data=data) for path, data in files.items()]
    )
    raw = _wire.write_files(
        (path, [memoryview(data)[:100], memoryview(data)[100:]]) for path, data in files.items()
    )
    assert raw == same.SerializeToString()
    assert dict(_wire.read_files(raw)) == files
    del files[""]
    assert dict(_wire.read_files(_wire.write_files((p, [d]) for p, d in files.items()))) == files
    with pytest.raises(DecodeError):
        _wire.read_files(raw[:-1])
