"""Whether the bytes of versions are there, whole and what they are called."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from services.artifact import checks_store as store
from services.artifact.blobs import BlobMissingError, BlobStore
from services.artifact.blobs.opening import open_blobs
from services.artifact.checks_store import StoredFile
from services.artifact.settings import ArtifactSettings
from services.common.sql.checks import Finding, check_common, read_only


def check(settings: ArtifactSettings, versions: Mapping[str, str]) -> Iterator[Finding]:
    """Check the database, and read every byte of some versions' artifacts.

    Args:
        settings: where database and packs are.
        versions: the artifact of each version, by their names.
    """
    blobs = open_blobs(settings)
    lying = _packs_on_disk(settings)
    with read_only(settings.url) as connection:
        yield from check_common(connection, "artifact")
        for pack, size in store.sealed_packs(connection).items():
            found = blobs.size(pack)
            if found != size:
                yield Finding("packs", pack, f"has {found or 0} of {size} bytes")
        for pack in sorted(lying - store.known_packs(connection)):
            yield Finding("packs", pack, "lies there, and the database does not know it")
        read: set[tuple[str, bytes]] = set()
        for version, artifact in versions.items():
            for file in store.find_files(connection, version, artifact):
                if isinstance(file, Finding):
                    yield file
                elif (file.project, file.digest) not in read:
                    read.add((file.project, file.digest))
                    yield from _bytes_of(file, version, blobs)
    yield from _left_over(settings)


def _bytes_of(file: StoredFile, version: str, blobs: BlobStore) -> Iterator[Finding]:
    whole = hashlib.sha256()
    for chunk in file.chunks:
        try:
            data = blobs.read(chunk.pack, chunk.offset, chunk.length)
        except BlobMissingError:
            yield Finding("bytes", version, f"bytes of its file {file.digest.hex()} are missing")
            return
        whole.update(data)
    if whole.digest() != file.digest:
        yield Finding("bytes", version, f"its file {file.digest.hex()} has other bytes")


def _packs_on_disk(settings: ArtifactSettings) -> set[str]:
    folder = settings.folder / "packs"
    if settings.s3_endpoint or not folder.is_dir():
        return set()
    return {path.name for path in folder.rglob("*") if path.is_file()}


def _left_over(settings: ArtifactSettings) -> Iterator[Finding]:
    limit = time.time() - settings.temporary_seconds
    folder: Path = settings.folder / "unfinished"
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.stat().st_mtime < limit:
            yield Finding("temporary files", path.name, "was left by a process that is gone")
