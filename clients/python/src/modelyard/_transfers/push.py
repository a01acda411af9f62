"""Sending a tree of files: hash, ask what is missing, send it, commit.

Small files travel in groups of up to 32 MiB, three at a time: while some are under way the
next ones are hashed. Large ones go by themselves. No file is held in memory until it is sent.
After a crash of either side, push again: what has arrived is found.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard._transfers.chunking import cut
from modelyard._transfers.large import push_large
from modelyard._transfers.progress import Meter, OnProgress
from modelyard._transfers.sending import Delivery, Piece, Reader, find
from modelyard._transfers.tree import Entry, LocalFile, encode_manifest, list_files
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import BYTES_TIMEOUT, Flow, Pause, ask, call, side_by_side
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import ModelyardError

FILES_PER_GROUP = 1000
GROUP_BYTES = 32 * 1024 * 1024
WHOLE_BYTES = 256 * 1024
"""A file that is not larger is one chunk."""
GROUPS_AT_ONCE = 3
LARGE_AT_ONCE = 2
_BREATH_BYTES = 32 * 1024 * 1024


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
    large = (push_large(parent, file, meter) for file in files if file.size > GROUP_BYTES)
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
        file.path: file.entry(bytes.fromhex(known[file.path]))
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
        entries.append(file.entry(source.digest))
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
    files = [source.digest for source in sources]
    chunks = {digest for source in sources for digest, _ in source.pieces}
    request = service.FindMissingRequest(parent=parent, file_digests=files, chunk_digests=chunks)
    answer = yield from ask(find(request, lambda r: r))
    absent = set(answer.missing_file_digests)
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
    delivery, breaks = Delivery(parent, pieces, meter), Breaks(sending=True)
    delivery.learn(answer)
    while True:
        yield from delivery.send()
        try:
            yield from ask(commit)
        except ModelyardError as error:
            delivery = Delivery(parent, pieces, Meter(0, None))
            yield breaks.after(error, advanced=False)
        else:
            return


def _hash_small(file: LocalFile) -> Source:
    reader = Reader(file)
    return _cut_up(reader.read(0, file.size), reader)


def _source_of(data: bytes) -> Source:
    return _cut_up(data, _Held(data))


def _cut_up(data: bytes, reader: Reader | _Held) -> Source:
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
