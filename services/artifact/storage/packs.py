"""Packs: the append-only files that chunks lie in, written once and read by ranges.

A pack is nothing but chunks one after the other; where each lies is in the
database. It is written to a local temporary file, which the blob store then
takes over whole.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.artifact.blobs import BlobMissingError, BlobStore, disk_errors
from services.artifact.blobs.disk import make_folder
from services.artifact.domain import (
    CHUNKS_PER_PACK,
    PACK_BYTES,
    SPAN_BYTES,
    Chunk,
    ChunkRef,
    Pack,
    digest_mismatch,
)

_SUFFIX = ".pack"


class PackFolder:
    """The local folder in which unfinished packs are written."""

    def __init__(self, root: Path, *, pack_bytes: int = PACK_BYTES) -> None:
        self._root = root
        self._pack_bytes = pack_bytes
        make_folder(root)

    def create(self) -> PackWriter:
        """Begin a pack."""
        return PackWriter(self._root, uuid.uuid4().hex, self._pack_bytes)

    def sweep(self, *, older_than_seconds: float) -> int:
        """Remove what a killed process left, and return how many files that was.

        Younger files may be another process's that is still writing.
        """
        limit = time.time() - older_than_seconds
        count = 0
        for path in self._root.glob(f"*{_SUFFIX}"):
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue
        return count


class PackWriter:
    """One pack being written; its methods block and are called in threads."""

    def __init__(self, folder: Path, pack: str, maximum: int) -> None:
        self.pack = pack
        self._maximum = maximum
        self._path = folder / f"{pack}{_SUFFIX}"
        self._descriptor = -1
        self._refs: dict[bytes, ChunkRef] = {}
        self.size = 0

    def has(self, digest: bytes) -> bool:
        """Say whether a chunk lies in it."""
        return digest in self._refs

    def has_room(self, chunks: Sequence[Chunk]) -> bool:
        """Say whether chunks still fit."""
        size = self.size + sum(len(chunk.data) for chunk in chunks)
        return size <= self._maximum and len(self._refs) + len(chunks) <= CHUNKS_PER_PACK

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Append chunks that it has not, all of them or, when the disk refuses, none."""
        new = {chunk.digest: chunk for chunk in chunks if not self.has(chunk.digest)}
        if not new:
            return
        with disk_errors():
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            _write_all(self._descriptor, [chunk.data for chunk in new.values()], self.size)
        for digest, chunk in new.items():
            self._refs[digest] = ChunkRef(digest, self.pack, self.size, len(chunk.data))
            self.size += len(chunk.data)

    def finish(self, blobs: BlobStore) -> Pack:
        """Hand the pack to the blob store; it is durable on return."""
        try:
            with disk_errors():
                os.ftruncate(self._descriptor, self.size)
            self._close()
            blobs.put(self.pack, self._path)
        except BaseException:
            self.discard()
            raise
        return Pack(self.pack, self.size, tuple(self._refs.values()))

    def discard(self) -> None:
        """Remove what was written."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _write_all(descriptor: int, pieces: Iterable[bytes | memoryview], offset: int) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest = rest[written:]
            offset += written


def hash_chunks(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Return chunks with their digests; refuse all with DIGEST_MISMATCH when one has another."""
    found = [Chunk(hashlib.sha256(chunk.data).digest(), chunk.data) for chunk in chunks]
    for chunk, said in zip(found, chunks, strict=True):
        if said.digest not in (b"", chunk.digest):
            raise digest_mismatch(said.digest, "the chunk's data has another SHA-256")
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """Chunks that lie one after the other in a pack and are read together."""

    pack: str
    offset: int
    length: int
    chunks: tuple[ChunkRef, ...]


def plan_spans(refs: Iterable[ChunkRef]) -> Iterator[Span]:
    """Group chunks, in the order given, into as few reads as they allow."""
    group: list[ChunkRef] = []
    for ref in refs:
        if group and not _continues(group, ref):
            yield _span(group)
            group = []
        group.append(ref)
    if group:
        yield _span(group)


def _continues(group: Sequence[ChunkRef], ref: ChunkRef) -> bool:
    last = group[-1]
    return (
        ref.pack == last.pack
        and ref.offset == last.offset + last.length
        and ref.offset + ref.length - group[0].offset <= SPAN_BYTES
    )


def _span(group: Sequence[ChunkRef]) -> Span:
    first, last = group[0], group[-1]
    return Span(first.pack, first.offset, last.offset + last.length - first.offset, tuple(group))


class CorruptChunkError(Exception):
    """A stored chunk is gone or not what it was."""

    def __init__(self, ref: ChunkRef) -> None:
        super().__init__(ref.digest.hex())
        self.ref = ref


def read_span(blobs: BlobStore, span: Span, *, verify: bool = True) -> bytes:
    """Read a span and verify each of its chunks, or raise `CorruptChunkError`."""
    try:
        data = blobs.read(span.pack, span.offset, span.length)
    except BlobMissingError:
        raise CorruptChunkError(_first_unreadable(blobs, span)) from None
    if not verify:
        return data
    view = memoryview(data)
    for ref in span.chunks:
        start = ref.offset - span.offset
        if hashlib.sha256(view[start : start + ref.length]).digest() != ref.digest:
            raise CorruptChunkError(ref)
    return data


def salvage_span(blobs: BlobStore, span: Span) -> tuple[list[Chunk], list[ChunkRef]]:
    """Return the chunks of a span that are what they were, and those that are not."""
    try:
        data = read_span(blobs, span)
    except CorruptChunkError as error:
        if len(span.chunks) == 1:
            return [], [error.ref]
        sound: list[Chunk] = []
        damaged: list[ChunkRef] = []
        for ref in span.chunks:
            some = salvage_span(blobs, _span([ref]))
            sound += some[0]
            damaged += some[1]
        return sound, damaged
    starts = [(ref, ref.offset - span.offset) for ref in span.chunks]
    return [Chunk(ref.digest, data[at : at + ref.length]) for ref, at in starts], []


def _first_unreadable(blobs: BlobStore, span: Span) -> ChunkRef:
    size = blobs.size(span.pack) or 0
    return next((ref for ref in span.chunks if ref.offset + ref.length > size), span.chunks[0])
