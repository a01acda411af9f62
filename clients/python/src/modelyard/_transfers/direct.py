"""Chunks straight to and from object storage, as far as that gets; the rest goes through gRPC.

What is sent lies in packs, chunks one after the other. The storage checks a pack's SHA-256; whoever
reads a chunk checks the chunk's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice

from modelyard._transfers import storage as _storage
from modelyard._transfers.chunking import MAX_CHUNK_BYTES
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import BYTES_TIMEOUT, Flow, ask, blocking, call, trusted
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import transfer_service_pb2 as service
from modelyard.errors import ModelyardError, ResourceExhaustedError, is_passing

PACK_BYTES = 32 * 1024 * 1024
"""How much of an upload is held in memory at a time, by each of its streams."""
REQUEST_BYTES = 64 * 1024 * 1024
"""How much one request reads, if so much lies together."""
TOGETHER_BYTES = 512 * 1024
"""Where less lies together the service collects it: a request costs more."""
FILES_PER_GRANT = 1000
"""Of how many files the service tells at once where they lie."""
PIECE_BYTES = 1024 * 1024
"""How much is read before it is written: what a processor's cache holds costs half."""
PIECES_AT_A_TIME = 8
"""After how many the asyncio client's thread does something else."""


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
    if not granted.HasField("grant"):
        return False
    errand = _storage.Errand((yield from trusted()))
    if not (yield from blocking(lambda: errand.put(granted.grant, data), errand.cancel)):
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
    authorities: bytes | None
    """Whom to trust about storage, beside those whom the system does."""

    def are_sound(self, size: int) -> bool:
        """Say whether each chunk can lie where it is said to, and all are so many bytes."""
        count = len(self.grants)
        return sum(chunk.length_bytes for chunk in self.chunks) == size and all(
            0 <= chunk.grant_index < count
            and chunk.offset_bytes >= 0
            and 0 < chunk.length_bytes <= MAX_CHUNK_BYTES
            for chunk in self.chunks
        )


def find(artifact: str, file: artifact_pb2.File) -> Flow[Places | None]:
    """Ask where a file's chunks lie; None when they go through the service."""
    answer = yield from _ask(artifact, [bytes.fromhex(file.sha256)])
    if answer is None:
        return None
    places = Places(answer.files[0].chunks, answer.grants, (yield from trusted()))
    return places if places.are_sound(file.size_bytes) else None


@dataclass(frozen=True, slots=True)
class Together:
    """Small files that lie beside one another, each in one piece: where, and which."""

    places: Places
    files: Sequence[artifact_pb2.File]


def find_together(artifact: str, files: Sequence[artifact_pb2.File]) -> Flow[Together | None]:
    """Ask which of some small files are worth a request to storage; None: the service has them.

    They are at most `FILES_PER_GRANT`.
    """
    wanted = {bytes.fromhex(file.sha256): file for file in files if file.size_bytes}
    if sum(file.size_bytes for file in wanted.values()) < TOGETHER_BYTES:
        return None
    answer = yield from _ask(artifact, list(wanted))
    if answer is None:
        return None
    found = sorted(
        _joined(answer, wanted), key=lambda one: (one[0].grant_index, one[0].offset_bytes)
    )
    places = [place for place, _ in found]
    kept: list[tuple[service.ChunkPlace, artifact_pb2.File]] = []
    for start, end in _runs(places, 0, len(places), maximum=REQUEST_BYTES):
        if sum(place.length_bytes for place in places[start:end]) >= TOGETHER_BYTES:
            kept += found[start:end]
    lie = Places([place for place, _ in kept], answer.grants, (yield from trusted()))
    together = Together(lie, [file for _, file in kept])
    size = sum(file.size_bytes for file in together.files)
    return together if kept and together.places.are_sound(size) else None


def _joined(
    answer: service.GrantReadsResponse, wanted: Mapping[bytes, artifact_pb2.File]
) -> Iterator[tuple[service.ChunkPlace, artifact_pb2.File]]:
    """Yield the files whose chunks lie in their order, one after the other, as one place each."""
    for one in answer.files:
        file, chunks = wanted.get(one.digest), one.chunks
        length = sum(chunk.length_bytes for chunk in chunks)
        if file is None or length != file.size_bytes or length > PIECE_BYTES:
            continue
        if len(list(_runs(chunks, 0, len(chunks), maximum=length))) == 1:
            first = chunks[0]
            place = service.ChunkPlace(
                length_bytes=length, grant_index=first.grant_index, offset_bytes=first.offset_bytes
            )
            yield place, file


def _ask(artifact: str, digests: Sequence[bytes]) -> Flow[service.GrantReadsResponse | None]:
    """Ask where files lie; None when they go through the service."""
    if not _storage.usable():
        return None
    request = service.GrantReadsRequest(artifact=artifact, file_digests=digests)
    wanted = call(request, service.GrantReadsResponse, lambda r: r, timeout=BYTES_TIMEOUT)
    breaks = Breaks()
    while True:
        try:
            answer = yield from ask(wanted)
        except ModelyardError as error:
            if isinstance(error, ResourceExhaustedError) and not is_passing(error):
                return None  # more chunks than one answer tells of
            yield breaks.after(error, advanced=False)
        else:
            return answer if answer.files else None


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of some chunks, from the first to before the last number."""

    first: int
    last: int
    data: memoryview


def read(
    places: Places, first: int, last: int, take: Callable[[Piece], object], *, buffers: int = 1
) -> Flow[None]:
    """Hand on chunks as they come from storage, in order and unverified; fewer where that fails.

    What cannot be read is left to the service, which knows why. The data of a piece is good until
    as many more as there are buffers were handed on.
    """
    errand = _storage.Errand(places.authorities)
    with closing(_pieces(errand, places, first, last, buffers)) as pieces:

        def hand_on() -> bool:
            piece = None
            for piece in islice(pieces, PIECES_AT_A_TIME):
                take(piece)
            return piece is not None

        while (yield from blocking(hand_on, errand.cancel)):
            pass


def _pieces(
    errand: _storage.Errand, places: Places, first: int, last: int, buffers: int
) -> Generator[Piece, None, None]:
    ring = cycle([memoryview(bytearray(PIECE_BYTES)) for _ in range(buffers)])
    for start, end in _runs(places.chunks, first, last, maximum=REQUEST_BYTES):
        begin = places.chunks[start]
        pieces = list(_runs(places.chunks, start, end, maximum=PIECE_BYTES))
        lengths = [sum(c.length_bytes for c in places.chunks[one:after]) for one, after in pieces]
        grant, done = places.grants[begin.grant_index], start
        with closing(errand.get(grant, begin.offset_bytes, lengths, ring)) as found:
            for data, (one, after) in zip(found, pieces, strict=False):
                yield Piece(one, after, data)
                done = after
        if done < end:
            return


def _runs(
    chunks: Sequence[service.ChunkPlace], first: int, last: int, *, maximum: int
) -> Iterator[tuple[int, int]]:
    """Yield runs of chunks that lie together, each from its first to before its last number."""
    start = first
    while start < last:
        begin = chunks[start]
        end, length = start + 1, begin.length_bytes
        while end < last and length + chunks[end].length_bytes <= maximum:
            chunk = chunks[end]
            if (chunk.grant_index, chunk.offset_bytes) != (
                begin.grant_index,
                begin.offset_bytes + length,
            ):
                break
            end, length = end + 1, length + chunk.length_bytes
        yield start, end
        start = end
