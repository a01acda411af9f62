"""Sending a tree of files: hash, ask what is missing, send it, commit.

Small files travel in groups, large ones in windows of 64 MiB, several of them at a time:
while some are under way the next ones are hashed. Files are read three times at most and
never held in memory as a whole. After a crash of either side, push again: what has arrived
is found.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from modelyard._calls import BYTES_TIMEOUT, Flow, Pause, Upload, ask, call, side_by_side
from modelyard._chunking import cut
from modelyard._progress import Meter, OnProgress
from modelyard._sending import Breaks, Delivery, Piece, find, slices
from modelyard._tree import Entry, LocalFile, encode_manifest, list_files
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import FailedPreconditionError, ModelyardError

FILES_PER_GROUP = 1000
GROUP_BYTES = 32 * 1024 * 1024
WINDOW_BYTES = 64 * 1024 * 1024
WHOLE_BYTES = 256 * 1024
"""A file that is not larger is one chunk."""
GROUPS_AT_ONCE = 3
LARGE_AT_ONCE = 2
WINDOWS_AT_ONCE = 2
_READ_BYTES = 1024 * 1024
_BREATH_BYTES = 32 * 1024 * 1024
_DIGESTS_PER_MESSAGE = 50_000
_WAIT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Source:
    """A file to send, cut and hashed."""

    digest: bytes
    size: int
    pieces: tuple[tuple[bytes, Piece], ...]

    def recipe(self) -> service.FileRecipe:
        """Return of which chunks it is made, for the server."""
        chunks = [digest for digest, _ in self.pieces]
        return service.FileRecipe(digest=self.digest, size_bytes=self.size, chunk_digests=chunks)


def push(
    parent: str,
    path: Path,
    *,
    ignore: Sequence[str] = (),
    only: Collection[str] | None = None,
    known: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> Flow[artifact_pb2.Artifact]:
    """Send a folder or a file to a project and return its artifact.

    `known` is the SHA-256 of files by path: of those that are stored no byte is read.
    """
    files = list_files(path, ignore=ignore, only=only)
    meter = Meter(sum(file.size for file in files), progress)
    there = yield from _find_known(parent, files, known or {}, meter)
    files = [file for file in files if file.path not in there]
    groups = (_push_group(parent, group, meter) for group in _groups(files))
    entries = [list(there.values()), *(yield from side_by_side(groups, limit=GROUPS_AT_ONCE))]
    large = (_push_large(parent, file, meter) for file in files if file.size > GROUP_BYTES)
    entries += yield from side_by_side(large, limit=LARGE_AT_ONCE)
    manifest = encode_manifest(entry for some in entries for entry in some)
    yield from _send_files(parent, [_source_of(manifest)], Meter(0, None))
    digest = hashlib.sha256(manifest).hexdigest()
    request = service.CreateArtifactRequest(parent=parent, digest=digest)
    create = call(
        request, service.CreateArtifactResponse, lambda r: r.artifact, timeout=BYTES_TIMEOUT
    )
    return (yield from ask(create))


def _find_known(
    parent: str, files: Sequence[LocalFile], known: Mapping[str, str], meter: Meter
) -> Flow[dict[str, Entry]]:
    """Return those files, by path, whose digests are known and which are stored."""
    found = {
        file.path: _entry(file, bytes.fromhex(known[file.path]))
        for file in files
        if file.path in known
    }
    if not found:
        return found
    digests = [bytes.fromhex(entry.sha256) for entry in found.values()]
    request = service.FindMissingRequest(parent=parent, file_digests=digests)
    absent = yield from ask(find(request, lambda r: {d.hex() for d in r.missing_file_digests}))
    there = {path: entry for path, entry in found.items() if entry.sha256 not in absent}
    meter.add(sum(entry.size for entry in there.values()), present=True)
    return there


def _groups(files: Iterable[LocalFile]) -> Iterator[list[LocalFile]]:
    group: list[LocalFile] = []
    size = 0
    for file in files:
        if file.size > GROUP_BYTES:
            continue
        if group and (len(group) == FILES_PER_GROUP or size + file.size > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _push_group(parent: str, files: Sequence[LocalFile], meter: Meter) -> Flow[list[Entry]]:
    """Send some small files."""
    entries: list[Entry] = []
    sources: dict[bytes, Source] = {}
    read = 0
    for file in files:
        source = _hash_small(file)
        entries.append(_entry(file, source.digest))
        if source.digest in sources:
            meter.add(file.size, present=True)
        sources.setdefault(source.digest, source)
        read += file.size
        if read > _BREATH_BYTES:
            read = 0
            yield Pause(0)
    yield from _send_files(parent, list(sources.values()), meter)
    return entries


def _send_files(parent: str, sources: Sequence[Source], meter: Meter) -> Flow[None]:
    request = service.FindMissingRequest(parent=parent, file_digests=[s.digest for s in sources])
    absent = yield from ask(find(request, lambda r: set(r.missing_file_digests)))
    missing = [source for source in sources if source.digest in absent]
    meter.add(sum(s.size for s in sources if s.digest not in absent), present=True)
    if not missing:
        return
    pieces = {digest: piece for source in missing for digest, piece in source.pieces}
    meter.add(
        sum(source.size for source in missing) - sum(piece.length for piece in pieces.values()),
        present=True,
    )
    recipes = [source.recipe() for source in missing]
    commit = call(
        service.CommitFilesRequest(parent=parent, recipes=recipes),
        service.CommitFilesResponse,
        lambda _: None,
        timeout=BYTES_TIMEOUT,
    )
    delivery, breaks = Delivery(parent, pieces, meter), Breaks()
    while True:
        yield from delivery.send()
        try:
            yield from ask(commit)
        except ModelyardError as error:
            delivery = Delivery(parent, pieces, Meter(0, None))
            yield breaks.after(error, advanced=False)
        else:
            return


@dataclass(slots=True)
class _Window:
    """A part of a large file: its chunks in order, and whether they are all stored."""

    chunks: list[bytes] = field(default_factory=list)
    stored: bool = False


@dataclass(slots=True)
class _Large:
    """A large file on its way: what is known of it so far."""

    file: LocalFile
    windows: list[_Window] = field(default_factory=list)
    digest: bytes | None = None
    is_new: bool = False
    """Whether some of it had to be sent."""
    is_cut: bool = False
    """Whether there are no more windows to come."""
    is_committed: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether all of its chunks are."""
        return self.is_cut and all(window.stored for window in self.windows)


def _push_large(parent: str, file: LocalFile, meter: Meter) -> Flow[list[Entry]]:
    """Send one large file, window by window, while its own digest is found."""
    breaks = Breaks()
    while True:
        large = _Large(file)
        yield from side_by_side(_parts(parent, large, meter), limit=2 + WINDOWS_AT_ONCE)
        assert large.digest is not None  # noqa: S101 - the first part found it
        try:
            yield from _commit_large(parent, large, large.digest)
        except ModelyardError as error:
            meter = Meter(0, None)
            yield breaks.after(error, advanced=False)
        else:
            return [_entry(file, large.digest)]


def _parts(parent: str, large: _Large, meter: Meter) -> Iterator[Flow[None]]:
    yield _hash_whole(large)
    yield _commit_meanwhile(parent, large)
    for window, pieces in _windows(large, meter):
        large.windows.append(window)
        yield _send_window(parent, large, window, Delivery(parent, pieces, meter))
    large.is_cut = True


def _send_window(parent: str, large: _Large, window: _Window, delivery: Delivery) -> Flow[None]:
    yield from delivery.send()
    window.stored = True
    large.is_new |= delivery.has_sent


def _windows(large: _Large, meter: Meter) -> Iterator[tuple[_Window, dict[bytes, Piece]]]:
    """Cut and hash a file; yield its chunks by as much as goes into one pack."""
    read = _Reader(large.file).read
    window, pieces = _Window(), dict[bytes, Piece]()
    offset = size = 0
    with large.file.location.open("rb", buffering=0) as stream:
        for data in cut(stream, large.file.size):
            if size + len(data) > WINDOW_BYTES:
                yield window, pieces
                window, pieces, size = _Window(), {}, 0
            digest = hashlib.sha256(data).digest()
            window.chunks.append(digest)
            if digest in pieces:
                meter.add(len(data), present=True)
            pieces[digest] = Piece(read, offset, len(data))
            offset += len(data)
            size += len(data)
    if offset != large.file.size:
        raise _changed(large.file)
    yield window, pieces


def _hash_whole(large: _Large) -> Flow[None]:
    state = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    read = 0
    with large.file.location.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(buffer[:count])
            read += count
            if read % _BREATH_BYTES < count:
                yield Pause(0)
    if read != large.file.size:
        raise _changed(large.file)
    large.digest = state.digest()


def _commit_meanwhile(parent: str, large: _Large) -> Flow[None]:
    """Commit a new file while it is sent: what is stored of it, the server hashes already."""
    while not large.is_new:
        if large.is_stored:
            return
        yield Pause(_WAIT_SECONDS)
    try:
        yield _commit(_recipe(parent, large))
    except ModelyardError:
        return  # tried once more when all is stored, which tells what is wrong
    large.is_committed = True


def _recipe(parent: str, large: _Large) -> Iterator[service.CommitFileRequest | Pause]:
    """Name the chunks of a file once they and all before them are stored; last of all itself."""
    named = 0
    while True:
        is_last = large.is_stored and large.digest is not None
        windows = list(takewhile(lambda window: window.stored, large.windows[named:]))
        named += len(windows)
        chunks = [chunk for window in windows for chunk in window.chunks]
        for some in slices(chunks, _DIGESTS_PER_MESSAGE):
            yield service.CommitFileRequest(parent=parent, chunk_digests=some)
        if is_last:
            break
        yield Pause(_WAIT_SECONDS)
    yield service.CommitFileRequest(
        parent=parent, digest=large.digest or b"", size_bytes=large.file.size
    )


def _commit(messages: Iterator[service.CommitFileRequest | Pause]) -> Upload:
    return Upload(
        messages,
        service.CommitFileRequest,
        service.CommitFileResponse,
        lambda _: None,
        lambda: None,
    )


def _commit_large(parent: str, large: _Large, digest: bytes) -> Flow[None]:
    if large.is_committed:
        return
    request = service.FindMissingRequest(parent=parent, file_digests=[digest])
    if (yield from ask(find(request, lambda r: list(r.missing_file_digests)))):
        yield _commit(_recipe(parent, large))


def _hash_small(file: LocalFile) -> Source:
    data = file.location.read_bytes()
    if len(data) != file.size:
        raise _changed(file)
    return _cut_up(data, _Reader(file))


def _source_of(data: bytes) -> Source:
    return _cut_up(data, _Held(data))


def _cut_up(data: bytes, reader: _Reader | _Held) -> Source:
    whole = hashlib.sha256(data).digest()
    if len(data) <= WHOLE_BYTES:
        pieces = ((whole, Piece(reader.read, 0, len(data))),) if data else ()
        return Source(whole, len(data), pieces)
    found, offset = [], 0
    for chunk in cut(io.BytesIO(data), len(data)):
        piece = Piece(reader.read, offset, len(chunk))
        found.append((hashlib.sha256(chunk).digest(), piece))
        offset += len(chunk)
    return Source(whole, len(data), tuple(found))


@dataclass(frozen=True, slots=True)
class _Held:
    data: bytes

    def read(self, offset: int, count: int) -> bytes:
        return self.data[offset : offset + count]


@dataclass(frozen=True, slots=True)
class _Reader:
    file: LocalFile

    def read(self, offset: int, count: int) -> bytes:
        with self.file.location.open("rb", buffering=0) as stream:
            found = os.fstat(stream.fileno())
            data = os.pread(stream.fileno(), count, offset)
        if (found.st_size, found.st_mtime_ns) != (self.file.size, self.file.mtime_ns):
            raise _changed(self.file)
        return data


def _entry(file: LocalFile, digest: bytes) -> Entry:
    return Entry(file.path, file.executable, file.size, digest.hex())


def _changed(file: LocalFile) -> FailedPreconditionError:
    return FailedPreconditionError(
        f"{file.location} changed while it was sent; try again when nothing writes to it",
        reason="FILE_CHANGED",
        metadata={"path": file.path},
    )
