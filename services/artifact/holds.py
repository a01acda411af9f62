"""Holds: named references that keep an artifact's bytes, taken once those are seen to be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial

from services.artifact import artifact_store, store
from services.artifact.blobs import BlobStore
from services.artifact.depot import Depot
from services.artifact.domain import ChunkRef, Hold, Lease, bytes_missing
from services.artifact.manifest import Manifest
from services.common.errors import Reason, ServiceError, not_found
from services.common.names import ArtifactName, ProjectName
from services.common.sql.database import Database, Transaction

Wanted = tuple[ArtifactName, str]
"""An artifact and who is to hold it."""
_FILES_AT_ONCE = 200


class Holds:
    """Take and release holds."""

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
        self._granting = lease

    async def hold(self, name: ArtifactName, holder: str) -> Hold:
        """Hold an artifact that is wholly there; a hold that was taken stays as it is.

        Raises:
            ServiceError: BYTES_MISSING.
        """
        now = self._clock()
        found = await self._database.lookup(
            lambda tx: artifact_store.find_holding(tx.connection, name, holder)
        )
        if found.hold is not None:
            return found.hold
        await self._secure(name, found.lease_expire_time, now)
        hold = Hold(name, holder, now)
        return await self._database.write(lambda tx: artifact_store.add_hold(tx.connection, hold))

    async def hold_all(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Hold artifacts of one project, each for a holder; return those not wholly there."""
        if not wanted:
            return []
        now = self._clock()
        held, leases = await self._database.lookup(
            lambda tx: artifact_store.find_holdings(tx.connection, wanted)
        )
        new = [one for one in wanted if one not in held]
        names = {name for name, _ in new}
        lost = {name for name in names if await self._is_lost(name, leases.get(name), now)}
        holds = [Hold(name, holder, now) for name, holder in new if name not in lost]
        if holds:
            lost |= await self._database.write(
                lambda tx: artifact_store.add_holds(tx.connection, holds)
            )
        return [one for one in new if one[0] in lost]

    async def release(self, name: ArtifactName, holder: str) -> None:
        """Release a hold; there may be none."""
        await self._database.write(
            lambda tx: artifact_store.delete_hold(tx.connection, name, holder)
        )

    async def list(self, name: ArtifactName, *, after: str, limit: int) -> list[Hold]:
        """Return an artifact's holds by holder, or refuse with RESOURCE_NOT_FOUND."""

        def read(tx: Transaction) -> list[Hold]:
            if artifact_store.find_artifact(tx.connection, name) is None:
                raise not_found(name)
            return artifact_store.list_holds(tx.connection, name, after=after, limit=limit)

        return await self._database.read(read)

    async def release_holder(self, project: ProjectName, holder: str) -> None:
        """Release all that a holder holds in a project; that may be nothing."""
        await self._database.write(
            lambda tx: artifact_store.delete_holder(tx.connection, project.project, holder)
        )

    async def _is_lost(self, name: ArtifactName, leased: datetime | None, now: datetime) -> bool:
        try:
            await self._secure(name, leased, now)
        except ServiceError as error:
            if error.reason is not Reason.BYTES_MISSING:
                raise
            return True
        return False

    async def _secure(self, name: ArtifactName, leased: datetime | None, now: datetime) -> None:
        """See that all of an artifact is there, and goes on being so until it is held."""
        # What was just committed is leased for long enough already.
        if leased is None or leased < now + self._granting.duration / 2:
            await self._lease(name, self._granting.granted(now))
        # The lease keeps the bytes while they are looked over, without a long transaction.
        await self._check_whole(name)

    async def _lease(self, name: ArtifactName, until: datetime) -> None:
        if not await self._database.write(
            lambda tx: artifact_store.lease_artifact(tx.connection, name, until=until)
        ):
            raise bytes_missing(bytes.fromhex(name.artifact))

    async def _check_whole(self, name: ArtifactName) -> None:
        digests = [bytes.fromhex(name.artifact)]
        digests += {entry.digest for entry in (await self._manifest(name)).entries}
        sizes: dict[str, int] = {}
        for start in range(0, len(digests), _FILES_AT_ONCE):
            some = digests[start : start + _FILES_AT_ONCE]
            while lost := await self._lost(name.project, some, sizes):
                mark = partial(_mark_damaged, project=name.project, lost=lost)
                if await self._database.write(mark):
                    raise bytes_missing(lost[0].digest)
                # All of them had been moved to another pack; seen to be there once more.

    async def _lost(
        self, project: str, files: Sequence[bytes], sizes: dict[str, int]
    ) -> Sequence[ChunkRef]:
        """Return the chunks of files that do not lie where they should."""
        refs = await self._database.read(partial(_refs, project=project, digests=files))
        await self._look_up(sizes, {ref.pack for ref in refs})
        return [ref for ref in refs if ref.offset + ref.length > sizes[ref.pack]]

    async def _manifest(self, name: ArtifactName) -> Manifest:
        try:
            return await self._depot.manifest(name)
        except ServiceError as error:
            if error.reason is not Reason.CORRUPT_BYTES:
                raise
            raise bytes_missing(bytes.fromhex(name.artifact)) from error

    async def _look_up(self, sizes: dict[str, int], packs: Iterable[str]) -> None:
        """Add the sizes of packs that are not known yet; of a lost one it is 0."""
        loop = asyncio.get_running_loop()
        new = [pack for pack in packs if pack not in sizes]
        found = await asyncio.gather(
            *(loop.run_in_executor(self._threads, self._blobs.size, pack) for pack in new)
        )
        sizes.update((pack, size or 0) for pack, size in zip(new, found, strict=True))


def _refs(tx: Transaction, *, project: str, digests: Sequence[bytes]) -> list[ChunkRef]:
    """Return where the chunks of files lie; all of them must be there."""
    files = store.find_files(tx.connection, project, digests)
    for digest in digests:
        if digest not in files:
            raise bytes_missing(digest)
    chunks = {chunk for file in files.values() for chunk in file.chunks}
    refs = store.find_chunks(tx.connection, project, list(chunks))
    for chunk in chunks:
        if chunk not in refs:
            raise bytes_missing(chunk)
    return list(refs.values())


def _mark_damaged(tx: Transaction, *, project: str, lost: Sequence[ChunkRef]) -> bool:
    """Record lost chunks; False when none lies there any more."""
    marked = [store.mark_damaged(tx.connection, project, ref) for ref in lost]
    return any(marked)
