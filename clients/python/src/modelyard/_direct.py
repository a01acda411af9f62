"""Chunks straight to and from object storage, as far as that gets; the rest goes through gRPC.

What is sent lies in packs, chunks one after the other. The storage checks a pack's SHA-256; whoever
reads a chunk checks the chunk's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modelyard import _storage
from modelyard._calls import BYTES_TIMEOUT, Flow, ask, call
from modelyard.artifact.v1 import transfer_service_pb2 as service

PACK_BYTES = 32 * 1024 * 1024
"""How much of an upload is held in memory at a time, by each of its streams."""
SPAN_BYTES = 8 * 1024 * 1024


def send(
    parent: str,
    digests: Sequence[bytes],
    length: Callable[[bytes], int],
    read: Callable[[bytes], bytes],
) -> Flow[list[bytes]]:
    """Put chunks into storage; return those that did not get there."""
    sent = 0
    for pack in _packs(digests, length):
        data = bytearray()
        for digest in pack:
            data += read(digest)
        if not (yield from _send_pack(parent, [(one, length(one)) for one in pack], data)):
            break
        sent += len(pack)
    return list(digests[sent:])


def _packs(digests: Sequence[bytes], length: Callable[[bytes], int]) -> Iterator[list[bytes]]:
    pack: list[bytes] = []
    size = 0
    for digest in digests:
        if pack and size + length(digest) > PACK_BYTES:
            yield pack
            pack, size = [], 0
        pack.append(digest)
        size += length(digest)
    if pack:
        yield pack


def _send_pack(parent: str, chunks: Sequence[tuple[bytes, int]], data: bytearray) -> Flow[bool]:
    announce = service.GrantPackRequest(
        parent=parent, size_bytes=len(data), sha256=hashlib.sha256(data).digest()
    )
    granted = yield from ask(call(announce, service.GrantPackResponse, lambda r: r))
    if not granted.HasField("grant") or not _storage.put(granted.grant, data):
        return False
    request = service.AddPackRequest(parent=parent, pack=granted.pack)
    for digest, length in chunks:
        request.chunks.add(digest=digest, length_bytes=length)
    yield from ask(call(request, service.AddPackResponse, lambda _: None, timeout=BYTES_TIMEOUT))
    return True


@dataclass(frozen=True, slots=True)
class Places:
    """Where the chunks of a file lie, in order, and how they are read."""

    chunks: Sequence[service.ChunkPlace]
    grants: Sequence[service.Grant]


def find(artifact: str, sha256: str, chunks: Sequence[bytes]) -> Flow[Places | None]:
    """Ask where a file's chunks lie; None when they go through the service."""
    request = service.GrantReadsRequest(artifact=artifact, file_digests=[bytes.fromhex(sha256)])
    wanted = call(request, service.GrantReadsResponse, lambda r: r, timeout=BYTES_TIMEOUT)
    answer = yield from ask(wanted)
    if not answer.files or [chunk.digest for chunk in answer.files[0].chunks] != list(chunks):
        return None
    return Places(answer.files[0].chunks, answer.grants)


def receive(places: Places, first: int, last: int, take: Callable[[int, memoryview], None]) -> int:
    """Read chunks from storage, unverified; return before which it ended.

    What cannot be read is left to the service, which knows why.
    """
    for start, end in _spans(places.chunks, first, last):
        chunks = places.chunks[start:end]
        begin, final = chunks[0], chunks[-1]
        length = final.offset_bytes + final.length_bytes - begin.offset_bytes
        grant = places.grants[begin.grant_index]
        data = _storage.get(grant, begin.offset_bytes, length)
        if data is None:
            return start
        view = memoryview(data)
        for number, chunk in enumerate(chunks, start):
            at = chunk.offset_bytes - begin.offset_bytes
            take(number, view[at : at + chunk.length_bytes])
    return last


def _spans(
    chunks: Sequence[service.ChunkPlace], first: int, last: int
) -> Iterator[tuple[int, int]]:
    """Yield runs of chunks that lie one after the other and are read together."""
    start = first
    while start < last:
        end, begin = start + 1, chunks[start]
        while end < last:
            before, chunk = chunks[end - 1], chunks[end]
            follows = (
                chunk.grant_index == begin.grant_index
                and chunk.offset_bytes == before.offset_bytes + before.length_bytes
                and chunk.offset_bytes + chunk.length_bytes - begin.offset_bytes <= SPAN_BYTES
            )
            if not follows:
                break
            end += 1
        yield start, end
        start = end
