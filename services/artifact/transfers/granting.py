"""Grants: bytes that go straight between clients and storage.

What a client puts there itself, the service has not seen. Storage made sure that
the pack is what its sender announced; that its chunks are what the sender says is
the sender's claim until the pack was read over in the background. Nobody but the
sender builds on a claim: see `committing`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from services.artifact import artifact_store, store
from services.artifact.blobs import BlobStore, Grant
from services.artifact.depot import Depot
from services.artifact.domain import (
    CHUNKS_PER_CALL,
    ChunkRef,
    Lease,
    Pack,
    bytes_missing,
    corrupt_bytes,
    limit_exceeded,
    quota_exceeded,
)
from services.artifact.transfers import store as grant_store
from services.artifact.transfers.store import Announced
from services.common.errors import invalid_field, not_found
from services.common.names import ArtifactName
from services.common.sql.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Placed:
    """Of which chunks files are made, where those lie, and how they are read."""

    files: tuple[tuple[bytes, tuple[ChunkRef, ...]], ...]
    grants: dict[str, Grant]


class Granting:
    """Grants access to single objects, and takes note of what was put there."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        depot: Depot,
        threads: Executor,
        clock: Callable[[], datetime],
        lease: Lease,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._depot = depot
        self._threads = threads
        self._clock = clock
        self._lease = lease

    async def grant_pack(
        self, project: str, *, size: int, sha256: bytes, sender: str
    ) -> tuple[str, Grant] | None:
        """Grant the putting of a pack; None where storage takes none.

        Raises:
            ServiceError: LIMIT_EXCEEDED.
        """
        signer = self._blobs.puts
        if signer is None:
            return None
        name = uuid.uuid4().hex
        now = self._clock()
        announced = Announced(name, project, sender, size, sha256)

        def begin(tx: Transaction) -> int | None:
            if store.begin_pack(tx.connection, project, name, size, now=now):
                # What was not put while an unfinished pack is kept never will be.
                grant_store.forget_announced(tx.connection, before=now - 2 * self._lease.duration)
                grant_store.add_announced(tx.connection, announced, now)
                return None
            return store.find_quota(tx.connection, project)

        quota = await self._database.write(begin)
        if quota is not None:
            raise quota_exceeded(project, quota)
        return name, await signer.put(name, size, sha256)

    async def add_pack(
        self, project: str, name: str, chunks: Sequence[tuple[bytes, int]], *, sender: str
    ) -> None:
        """Take note of a pack that was put, and of what its sender says is in it.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, BYTES_MISSING, INVALID_FIELD.
        """
        announced = await self._database.read(
            lambda tx: grant_store.find_announced(tx.connection, name)
        )
        if announced is None or (announced.project, announced.sender) != (project, sender):
            raise not_found(f"projects/{project}/packs/{name}")
        if sum(length for _, length in chunks) != announced.size:
            raise invalid_field("chunks", "must make up the whole pack")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._blobs.checksum, name)
        if found != (announced.size, announced.sha256):
            raise bytes_missing(announced.sha256)
        starts = accumulate((length for _, length in chunks), initial=0)
        refs = tuple(
            ChunkRef(digest, name, start, length)
            for (digest, length), start in zip(chunks, starts, strict=False)
        )
        granted = self._lease.granted(self._clock())

        def seal(tx: Transaction) -> bool:
            if grant_store.is_added(tx.connection, name):
                return True
            pack = Pack(name, announced.size, refs)
            grant_store.set_claimed(tx.connection, name, sender)
            return store.seal_pack(tx.connection, project, pack, lease=granted)

        if not await self._database.write(seal):
            raise not_found(f"projects/{project}/packs/{name}")

    async def grant_reads(self, name: ArtifactName, digests: Sequence[bytes]) -> Placed | None:
        """Say where the chunks of files lie and grant reading there; None where none can be.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, CORRUPT_BYTES, LIMIT_EXCEEDED.
        """
        signer = self._blobs.reads
        if signer is None:
            return None
        listed = {entry.digest for entry in (await self._depot.manifest(name)).entries}
        for digest in digests:
            if digest not in listed:
                raise not_found(f"{name}: file {digest.hex()}")
        files = await self._database.read(lambda tx: _places(tx, name, digests))
        packs = {ref.pack for _, refs in files for ref in refs}
        grants = {pack: await signer.get(pack) for pack in sorted(packs)}
        return Placed(files, grants)


def _places(
    tx: Transaction, name: ArtifactName, digests: Sequence[bytes]
) -> tuple[tuple[bytes, tuple[ChunkRef, ...]], ...]:
    # Asked again, since the manifest may have been remembered for long.
    if artifact_store.find_artifact(tx.connection, name) is None:
        raise not_found(name)
    project = name.project
    files = store.find_files(tx.connection, project, digests)
    for digest in digests:
        if digest not in files:
            raise corrupt_bytes(digest)
    if sum(len(file.chunks) for file in files.values()) > CHUNKS_PER_CALL:
        raise limit_exceeded("chunks_per_call", CHUNKS_PER_CALL)
    wanted = list({chunk for file in files.values() for chunk in file.chunks})
    refs = store.find_chunks(tx.connection, project, wanted)
    for chunk in wanted:
        if chunk not in refs:
            raise corrupt_bytes(chunk)
    return tuple(
        (digest, tuple(refs[chunk] for chunk in files[digest].chunks)) for digest in digests
    )
