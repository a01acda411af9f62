"""What clients fetch trees with: many small files in one call, and the recipes of large ones."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import chain

from services.artifact import artifact_store, store
from services.artifact.depot import Depot
from services.artifact.domain import (
    FILES_PER_READ,
    MESSAGE_BYTES,
    ChunkRef,
    StoredFile,
    bytes_missing,
    limit_exceeded,
)
from services.artifact.manifest import ManifestEntry, check_path
from services.artifact.reading import ContentReader, Located
from services.common.errors import invalid_field, not_found
from services.common.names import ArtifactName
from services.common.sql.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A whole small file of an artifact."""

    path: str
    pieces: list[memoryview]


class Batches:
    """Read small files together, and of which chunks a file is made."""

    def __init__(self, *, database: Database, depot: Depot, content: ContentReader) -> None:
        self._database = database
        self._depot = depot
        self._content = content

    async def open_files(
        self, name: ArtifactName, paths: Sequence[str], *, verify: bool
    ) -> AsyncIterator[list[SmallFile]]:
        """Return small files in the order asked for, in groups of at most 1 MiB.

        A caller who verifies each file need not have its chunks verified here.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PATH, INVALID_FIELD, LIMIT_EXCEEDED;
                CORRUPT_BYTES.
        """
        if len(paths) > FILES_PER_READ:
            raise limit_exceeded("files_per_read", FILES_PER_READ)
        entries = [await self._entry(name, path) for path in paths]
        if any(entry.size > MESSAGE_BYTES for entry in entries):
            raise invalid_field("paths", f"must name files of at most {MESSAGE_BYTES} bytes")
        located = await self._database.read(lambda tx: _locate_all(tx, name, entries))
        return _split(entries, self._content.read(name.project, located, verify=verify))

    async def recipe(self, name: ArtifactName, path: str) -> tuple[ManifestEntry, StoredFile]:
        """Return a file of an artifact and of which chunks it is made.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PATH.
        """
        entry = await self._entry(name, path)
        found = await self._database.read(lambda tx: _find(tx, name, [entry.digest]))
        return entry, found[entry.digest]

    async def _entry(self, name: ArtifactName, path: str) -> ManifestEntry:
        check_path(path)
        entry = (await self._depot.manifest(name)).find(path)
        if entry is None:
            raise not_found(f"{name}/{path}")
        return entry


def _find(tx: Transaction, name: ArtifactName, digests: list[bytes]) -> dict[bytes, StoredFile]:
    # Asked again, since the manifest may have been remembered for long.
    if artifact_store.find_artifact(tx.connection, name) is None:
        raise not_found(name)
    found = store.find_files(tx.connection, name.project, digests, damaged=True)
    for digest in digests:
        if digest not in found:
            raise bytes_missing(digest)
    return found


def _locate_all(tx: Transaction, name: ArtifactName, entries: Sequence[ManifestEntry]) -> Located:
    """Return the files as if they were one, so that their chunks are read together."""
    files = _find(tx, name, list({entry.digest for entry in entries}))
    ordered = [files[entry.digest] for entry in entries]
    chunks = tuple(chain.from_iterable(file.chunks for file in ordered))
    lengths = tuple(chain.from_iterable(file.lengths for file in ordered))
    whole = StoredFile(b"", sum(lengths), chunks, lengths)
    refs: dict[bytes, ChunkRef] = store.find_chunks(
        tx.connection, name.project, list(set(chunks)), damaged=True
    )
    return Located(whole, 0, refs)


async def _split(
    entries: Sequence[ManifestEntry], pieces: AsyncIterator[memoryview]
) -> AsyncIterator[list[SmallFile]]:
    """Cut the content of files that follow each other into files again."""
    ahead: deque[memoryview] = deque()
    buffered = size = 0
    group: list[SmallFile] = []
    for entry in entries:
        while buffered < entry.size:
            ahead.append(await anext(pieces))
            buffered += len(ahead[-1])
        if size + entry.size > MESSAGE_BYTES:
            yield group
            group, size = [], 0
        group.append(SmallFile(entry.path, _take(ahead, entry.size)))
        size += entry.size
        buffered -= entry.size
    if group:
        yield group


def _take(ahead: deque[memoryview], count: int) -> list[memoryview]:
    parts = []
    while count:
        piece = ahead.popleft()
        if len(piece) > count:
            ahead.appendleft(piece[count:])
            piece = piece[:count]
        parts.append(piece)
        count -= len(piece)
    return parts
