"""The depot: artifacts, made of committed files and read back by path."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime

from services.artifact import artifact_store, store
from services.artifact.domain import (
    FILES_PER_ARTIFACT,
    MANIFEST_BYTES,
    Artifact,
    Lease,
    bytes_missing,
    corrupt_bytes,
    offset_out_of_range,
)
from services.artifact.manifest import (
    Manifest,
    ManifestEntry,
    check_path,
    invalid_manifest,
)
from services.artifact.reading import ContentReader, Located
from services.common.errors import not_found
from services.common.names import ArtifactName
from services.common.sql.database import Database, Transaction


class Depot:
    """Commit artifacts and read them."""

    def __init__(
        self,
        *,
        database: Database,
        content: ContentReader,
        threads: Executor,
        clock: Callable[[], datetime],
        lease: Lease,
    ) -> None:
        self._database = database
        self._content = content
        self._threads = threads
        self._clock = clock
        self._lease = lease
        self._manifests: OrderedDict[ArtifactName, Manifest] = OrderedDict()
        self._loading = asyncio.Lock()

    async def create(self, name: ArtifactName, *, creator: str) -> Artifact:
        """Commit a tree by its manifest; return the artifact, an earlier one if there is one.

        Raises:
            ServiceError: BYTES_MISSING, INVALID_PATH, INVALID_MANIFEST, LIMIT_EXCEEDED.
        """
        existing = await self._lease_again(name)
        if existing is not None:
            return existing
        manifest = await self._parse(name)
        await self._check_files(name.project, manifest, creator)
        now = self._clock()
        artifact = Artifact(name, len(manifest.entries), manifest.size, creator, now)
        files = {entry.digest for entry in manifest.entries} | {bytes.fromhex(name.artifact)}
        granted = self._lease.granted(now)
        created = await self._database.write(
            lambda tx: artifact_store.add_artifact(
                tx.connection, artifact, files=files, lease=granted
            )
        )
        self._remember(name, manifest)
        return created

    async def _lease_again(self, name: ArtifactName) -> Artifact | None:
        """Return an artifact that exists, leased."""
        now = self._clock()
        leased = await self._database.lookup(
            lambda tx: artifact_store.artifact_lease(tx.connection, name)
        )
        if leased is None:
            return None
        if leased >= self._lease.promised(now):
            return await self._find(name)
        granted = self._lease.granted(now)
        return await self._database.write(
            lambda tx: artifact_store.lease_artifact(tx.connection, name, until=granted)
        )

    async def get(self, name: ArtifactName) -> Artifact:
        """Return an artifact, or refuse with RESOURCE_NOT_FOUND."""
        artifact = await self._find(name)
        if artifact is None:
            raise not_found(name)
        return artifact

    async def list_files(
        self, name: ArtifactName, *, prefix: str, after: str | None, limit: int
    ) -> Sequence[ManifestEntry]:
        """Return the artifact's files, by path, from after a path on."""
        manifest = await self.manifest(name)
        return manifest.page(prefix=prefix, after=after, limit=limit)

    async def open_file(
        self,
        name: ArtifactName,
        path: str,
        *,
        offset: int,
        limit: int | None,
        verify: bool = True,
    ) -> tuple[ManifestEntry, AsyncIterator[memoryview]]:
        """Return a file of an artifact and the range of its content.

        A caller who verifies the whole file need not have its chunks verified here.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PATH, OFFSET_OUT_OF_RANGE; CORRUPT_BYTES.
        """
        check_path(path)
        entry = (await self.manifest(name)).find(path)
        if entry is None:
            raise not_found(f"{name}/{path}")
        if offset > entry.size:
            raise offset_out_of_range(offset, entry.size)
        digest = entry.digest

        def locate(tx: Transaction) -> Located:
            # Asked again, since the manifest may have been remembered for long.
            if artifact_store.find_artifact(tx.connection, name) is None:
                raise not_found(name)
            return self._content.locate(tx, name.project, digest, offset=offset)

        located = await self._database.read(locate)
        content = self._content.read(
            name.project, located, offset=offset, limit=limit, verify=verify
        )
        return entry, content

    async def manifest(self, name: ArtifactName) -> Manifest:
        """Return the manifest of an artifact, or refuse with RESOURCE_NOT_FOUND."""
        # One at a time: of many readers of a large tree, the first one's work serves all.
        async with self._loading:
            manifest = self._manifests.get(name)
            if manifest is None:
                await self.get(name)
                loop = asyncio.get_running_loop()
                data = await self._manifest_bytes(name)
                manifest = await loop.run_in_executor(self._threads, Manifest.load, data)
            self._remember(name, manifest)
            return manifest

    def _remember(self, name: ArtifactName, manifest: Manifest) -> None:
        """Keep a manifest, and of the others those used last, so that memory stays bounded."""
        self._manifests[name] = manifest
        self._manifests.move_to_end(name)
        count = sum(len(manifest.entries) + 1 for manifest in self._manifests.values())
        while count > FILES_PER_ARTIFACT and len(self._manifests) > 1:
            _, oldest = self._manifests.popitem(last=False)
            count -= len(oldest.entries) + 1

    async def _find(self, name: ArtifactName) -> Artifact | None:
        return await self._database.read(
            lambda tx: artifact_store.find_artifact(tx.connection, name)
        )

    async def _parse(self, name: ArtifactName) -> Manifest:
        data = await self._manifest_bytes(name)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, Manifest.parse, data)

    async def _manifest_bytes(self, name: ArtifactName) -> bytes:
        digest = bytes.fromhex(name.artifact)
        data = await self._content.read_all(name.project, digest, maximum=MANIFEST_BYTES)
        # Its chunks are what they are called; that they make this file may be somebody's word.
        if hashlib.sha256(data).digest() != digest:
            raise corrupt_bytes(digest)
        return data

    async def _check_files(self, project: str, manifest: Manifest, caller: str) -> None:
        digests = list({entry.digest for entry in manifest.entries})
        sizes = await self._database.read(
            lambda tx: store.file_sizes(tx.connection, project, digests, caller=caller)
        )
        for entry in manifest.entries:
            size = sizes.get(entry.digest)
            if size is None:
                raise bytes_missing(entry.digest)
            if size != entry.size:
                raise invalid_manifest(f"a file is said to have {entry.size} bytes and has {size}")
