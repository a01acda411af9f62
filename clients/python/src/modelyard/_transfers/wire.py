"""The messages that carry a file's bytes, written and read without copying those.

On the wire they are what protobuf makes of the messages of the same names; protobuf would copy
their bytes twice on either side. What is not laid out as expected is left to protobuf to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from modelyard.artifact.v1 import artifact_service_pb2 as service

Data: TypeAlias = "bytes | memoryview"

# Tags of fields that have a length: the field's number, then type 2.
_FIRST, _SECOND = 0x0A, 0x12
_MORE = 0x80


@dataclass(frozen=True, slots=True)
class Chunk:
    """`modelyard.artifact.v1.Chunk`."""

    digest: bytes
    data: Data


@dataclass(frozen=True, slots=True)
class Chunks:
    """`modelyard.artifact.v1.WriteChunksRequest`."""

    parent: str
    chunks: list[Chunk]


def write_chunks(parent: str, chunks: Iterable[Chunk]) -> bytes:
    """Write a `WriteChunksRequest`."""
    parts: list[Data] = [*_field(_FIRST, parent.encode())] if parent else []
    for chunk in chunks:
        digest = _field(_FIRST, chunk.digest) if chunk.digest else ()
        inner = [*digest, *_field(_SECOND, chunk.data)]
        parts += _header(_SECOND, sum(map(len, inner))), *inner
    return b"".join(parts)


def read_chunks(raw: bytes) -> Chunks | service.WriteChunksRequest:
    """Read a `WriteChunksRequest`.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    parent, chunks = "", []
    try:
        for tag, value in _fields(memoryview(raw)):
            if tag == _FIRST:
                parent = str(value, "utf-8")
            else:
                *digests, (last, data) = _fields(value)
                if last != _SECOND or [tag for tag, _ in digests] not in ([], [_FIRST]):
                    raise ValueError
                chunks.append(Chunk(bytes(digests[0][1]) if digests else b"", data))
    except (ValueError, IndexError):
        return service.WriteChunksRequest.FromString(raw)
    return Chunks(parent, chunks)


def write_file_data(data: Data) -> bytes:
    """Write a `ReadFileResponse` that has data only."""
    return b"".join(_field(_SECOND, data))


def read_file_data(raw: bytes) -> Data:
    """Return the data of a `ReadFileResponse`; there is none in the one that has the file."""
    try:
        ((tag, data),) = _fields(memoryview(raw))
        if tag == _SECOND:
            return data
    except (ValueError, IndexError):
        pass
    return service.ReadFileResponse.FromString(raw).data


def write_files(files: Iterable[tuple[str, Sequence[Data]]]) -> bytes:
    """Write a `ReadFilesResponse`: paths, and the data of each in pieces."""
    parts: list[Data] = []
    for path, pieces in files:
        size = sum(map(len, pieces))
        inner = [*_field(_FIRST, path.encode())] if path else []
        inner += (_header(_SECOND, size), *pieces) if size else ()
        parts += _header(_FIRST, sum(map(len, inner))), *inner
    return b"".join(parts)


def read_files(raw: bytes) -> list[tuple[str, Data]]:
    """Return the paths and the data of a `ReadFilesResponse`.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    files: list[tuple[str, Data]] = []
    try:
        for outer, value in _fields(memoryview(raw)):
            (first, path), *rest = _fields(value)
            tags = [tag for tag, _ in rest]
            if (outer, first) != (_FIRST, _FIRST) or tags not in ([], [_SECOND]):
                raise ValueError
            files.append((str(path, "utf-8"), rest[0][1] if rest else b""))
    except (ValueError, IndexError):
        message = service.ReadFilesResponse.FromString(raw)
        return [(file.path, file.data) for file in message.files]
    return files


def _field(tag: int, value: Data) -> tuple[bytes, Data]:
    return _header(tag, len(value)), value


def _header(tag: int, length: int) -> bytes:
    header = bytearray((tag,))
    while length >= _MORE:
        header.append(length % _MORE | _MORE)
        length //= _MORE
    header.append(length)
    return bytes(header)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield tags and values; raise ValueError or IndexError at anything out of the ordinary."""
    at = 0
    while at < len(view):
        tag = view[at]
        length, shift, at = view[at + 1] % _MORE, 7, at + 2
        while view[at - 1] >= _MORE:
            length |= view[at] % _MORE << shift
            shift, at = shift + 7, at + 1
        end = at + length
        if tag not in (_FIRST, _SECOND) or end > len(view):
            raise ValueError
        yield tag, view[at:end]
        at = end
