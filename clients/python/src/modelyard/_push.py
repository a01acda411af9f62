"""Sending a tree of files: hash, ask what is missing, send it, commit.

There is no upload session to lose: after a broken connection the client asks
again what is missing and goes on. Files are read twice at most, and never held
in memory as a whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modelyard._calls import BYTES_TIMEOUT, Call, Flow, Pause, Upload, ask, call
from modelyard._tree import Entry, LocalFile, encode_manifest, list_files
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import FailedPreconditionError, ModelyardError, UnavailableError

CHUNK_BYTES = 1024 * 1024
DIGESTS_PER_CALL = 4096
CHUNKS_PER_MESSAGE = 4096
RECIPES_PER_CALL = 1000
CHUNKS_PER_CALL = 90_000
"""Fewer than the server takes, so that the message stays below its limit, too."""
BYTES_PER_CALL = 1024 * 1024 * 1024
"""Commit after so many bytes: the server reads them all before it answers."""
ATTEMPTS = 6
"""How often in a row the sending may break without a chunk getting through."""

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with how many bytes are done and how many there are."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to send, with what the server knows them by: a local file, or the manifest."""

    read: Callable[[int, int], bytes]
    size: int
    digest: bytes
    chunks: tuple[bytes, ...]

    def recipe(self) -> service.FileRecipe:
        """Return of which chunks it is made, for the server."""
        return service.FileRecipe(
            digest=self.digest, size_bytes=self.size, chunk_digests=self.chunks
        )


def push(
    parent: str, path: Path, *, ignore: Sequence[str] = (), progress: Progress | None = None
) -> Flow[artifact_pb2.Artifact]:
    """Send a folder or a file to a project and return its artifact."""
    files = list_files(path, ignore=ignore)
    entries: list[Entry] = []
    sources: dict[bytes, Source] = {}
    for file in files:
        source = yield from _hash_file(file)
        entries.append(Entry(file.path, file.executable, source.size, source.digest.hex()))
        sources.setdefault(source.digest, source)
    meter = _Meter(sum(source.size for source in sources.values()), progress)
    yield from _send(parent, sources, meter)
    manifest = _hash_bytes(encode_manifest(entries))
    yield from _send(parent, {manifest.digest: manifest}, _Meter(manifest.size, None))
    request = service.CreateArtifactRequest(parent=parent, digest=manifest.digest.hex())
    create = call(
        request, service.CreateArtifactResponse, lambda r: r.artifact, timeout=BYTES_TIMEOUT
    )
    return (yield from ask(create))


class _Meter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done = 0
        self._total = total
        self._progress = progress

    def add(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _hash_file(file: LocalFile) -> Flow[Source]:
    whole = hashlib.sha256()
    chunks = []
    read = 0
    with file.location.open("rb", buffering=0) as stream:
        while data := stream.read(CHUNK_BYTES):
            while len(data) < CHUNK_BYTES and (more := stream.read(CHUNK_BYTES - len(data))):
                data += more
            read += len(data)
            whole.update(data)
            chunks.append(hashlib.sha256(data).digest() if file.size > CHUNK_BYTES else b"")
            yield Pause(0)
    if read != file.size:
        raise _changed(file)
    digest = whole.digest()
    # A file of one chunk has that chunk's digest.
    digests = tuple(chunks) if file.size > CHUNK_BYTES else (digest,) * len(chunks)
    return Source(_Reader(file).read, file.size, digest, digests)


def _hash_bytes(data: bytes) -> Source:
    offsets = range(0, len(data), CHUNK_BYTES)
    chunks = tuple(hashlib.sha256(data[at : at + CHUNK_BYTES]).digest() for at in offsets)
    digest = hashlib.sha256(data).digest()
    return Source(lambda at, count: data[at : at + count], len(data), digest, chunks)


@dataclass(frozen=True, slots=True)
class _Reader:
    file: LocalFile

    def read(self, offset: int, count: int) -> bytes:
        with self.file.location.open("rb") as stream:
            found = os.fstat(stream.fileno())
            stream.seek(offset)
            data = stream.read(count)
        if (found.st_size, found.st_mtime_ns) != (self.file.size, self.file.mtime_ns):
            raise _changed(self.file)
        return data


def _changed(file: LocalFile) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"{file.location} changed while it was sent; try again when nothing writes to it",
        reason="FILE_CHANGED",
        metadata={"path": file.path},
    )


def _send(parent: str, sources: dict[bytes, Source], meter: _Meter) -> Flow[None]:
    missing: list[Source] = []
    for digests in _slices(list(sources), DIGESTS_PER_CALL):
        request = service.FindMissingRequest(parent=parent, file_digests=digests)
        absent = yield from ask(_find(request, lambda r: set(r.missing_file_digests)))
        missing += [sources[digest] for digest in digests if digest in absent]
        meter.add(sum(sources[digest].size for digest in digests if digest not in absent))
    for batch in _batches(missing):
        yield from _send_batch(parent, batch, meter)


def _send_batch(parent: str, batch: Sequence[Source], meter: _Meter) -> Flow[None]:
    """Send the chunks of some files and commit the files, as often as it takes."""
    sending = _Sending(parent, batch, meter)
    failures = 0
    while True:
        before = sending.delivered
        try:
            yield from sending.send_missing()
            recipes = [source.recipe() for source in batch]
            request = service.CommitFilesRequest(parent=parent, recipes=recipes)
            commit = call(
                request, service.CommitFilesResponse, lambda _: None, timeout=BYTES_TIMEOUT
            )
            yield from ask(commit)
        except ModelyardError as error:
            passing = isinstance(error, UnavailableError) or error.reason == "BYTES_MISSING"
            failures = 1 if sending.delivered > before else failures + 1
            if not passing or failures >= ATTEMPTS:
                raise
            yield Pause(0.2 * 2**failures)
        else:
            sending.finish()
            return


class _Sending:
    """The chunks of one batch: which are stored already, and which are still to be sent."""

    def __init__(self, parent: str, batch: Sequence[Source], meter: _Meter) -> None:
        self.delivered = 0
        self._missing = len({digest for source in batch for digest in source.chunks})
        self._parent = parent
        self._meter = meter
        self._total = sum(source.size for source in batch)
        self._reported = 0
        self._places: dict[bytes, tuple[Source, int]] = {}
        for source in batch:
            for number, digest in enumerate(source.chunks):
                self._places.setdefault(digest, (source, number * CHUNK_BYTES))

    def send_missing(self) -> Flow[None]:
        """Ask which chunks are missing and send those."""
        wanted: list[bytes] = []
        for digests in _slices(list(self._places), DIGESTS_PER_CALL):
            request = service.FindMissingRequest(parent=self._parent, chunk_digests=digests)
            wanted += yield from ask(_find(request, lambda r: list(r.missing_chunk_digests)))
        # What a broken stream brought across was not acknowledged, but it counts.
        self.delivered += self._missing - len(wanted)
        self._missing = len(wanted)
        if wanted:
            feed = _Feed(self._parent, wanted, self.read)
            yield Upload(
                feed.messages(),
                service.WriteChunksRequest,
                service.WriteChunksResponse,
                feed.acknowledged,
                lambda: feed.error,
            )
            if feed.durable < len(wanted):
                raise UnavailableError("the server ended the stream before all was stored")

    def read(self, digest: bytes) -> bytes:
        """Return a chunk's bytes."""
        source, offset = self._places[digest]
        data = source.read(offset, min(CHUNK_BYTES, source.size - offset))
        self._report(len(data))
        return data

    def finish(self) -> None:
        """Count what was there before."""
        self._report(self._total)

    def _report(self, count: int) -> None:
        # What is sent again after a broken connection is counted once.
        fresh = min(count, self._total - self._reported)
        self._reported += fresh
        self._meter.add(fresh)


class _Feed:
    """One stream of chunks, made as it is sent."""

    def __init__(
        self, parent: str, wanted: Sequence[bytes], read: Callable[[bytes], bytes]
    ) -> None:
        self.durable = 0
        self.error: Exception | None = None
        self._parent = parent
        self._wanted = wanted
        self._read = read

    def messages(self) -> Iterator[service.WriteChunksRequest]:
        """Return the requests; what goes wrong in between is kept in `error`."""
        try:
            message = service.WriteChunksRequest(parent=self._parent)
            size = 0
            for digest in self._wanted:
                data = self._read(digest)
                if size + len(data) > CHUNK_BYTES or len(message.chunks) == CHUNKS_PER_MESSAGE:
                    yield message
                    message, size = service.WriteChunksRequest(), 0
                message.chunks.add(digest=digest, data=data)
                size += len(data)
            yield message
        except Exception as problem:
            # gRPC would only log it and cancel the call.
            self.error = problem
            raise

    def acknowledged(self, response: service.WriteChunksResponse) -> None:
        """Take note of how many chunks are durable."""
        self.durable = response.durable_chunk_count


def _batches(sources: Iterable[Source]) -> Iterator[list[Source]]:
    batch: list[Source] = []
    chunks = size = 0
    for source in sources:
        full = (
            len(batch) == RECIPES_PER_CALL
            or chunks + len(source.chunks) > CHUNKS_PER_CALL
            or size + source.size > BYTES_PER_CALL
        )
        if batch and full:
            yield batch
            batch, chunks, size = [], 0, 0
        batch.append(source)
        chunks += len(source.chunks)
        size += source.size
    if batch:
        yield batch


def _find(
    request: service.FindMissingRequest, pick: Callable[[service.FindMissingResponse], T]
) -> Call[T]:
    return call(request, service.FindMissingResponse, pick, timeout=BYTES_TIMEOUT)


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
