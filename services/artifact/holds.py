"""Holds: named references that keep an artifact's bytes, taken once those are seen to be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial

from services.artifact import store
from services.artifact.blobs import BlobStore
from services.artifact.depot import Depot
from services.artifact.domain import LEASE, ChunkRef, Hold, bytes_missing
from services.common.database import Database, Transaction
from services.common.names import ArtifactName

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
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._depot = depot
        self._threads = threads
        self._clock = clock

    async def hold(self, name: ArtifactName, holder: str) -> Hold:
        """Hold an artifact that is wholly there; a hold that was taken stays as it is.

        Raises:
            ServiceError: BYTES_MISSING.
        """
        now = self._clock()
        until = now + LEASE

        def find_or_lease(tx: Transaction) -> tuple[Hold | None, bool]:
            held = store.find_hold(tx.connection, name, holder)
            return held, held is not None or store.lease_artifact(tx.connection, name, until=until)

        held, exists = await self._database.write(find_or_lease)
        if held is not None:
            return held
        if not exists:
            raise bytes_missing(bytes.fromhex(name.artifact))
        # The lease keeps the bytes while they are looked over, without a long transaction.
        await self._check_whole(name)
        hold = Hold(name, holder, now)
        return await self._database.write(lambda tx: store.add_hold(tx.connection, hold))

    async def release(self, name: ArtifactName, holder: str) -> None:
        """Release a hold; there may be none."""
        await self._database.write(lambda tx: store.delete_hold(tx.connection, name, holder))

    async def _check_whole(self, name: ArtifactName) -> None:
        manifest = await self._depot.manifest(name)
        digests = list({entry.digest for entry in manifest.entries})
        digests.append(bytes.fromhex(name.artifact))
        ends: dict[str, ChunkRef] = {}
        for start in range(0, len(digests), _FILES_AT_ONCE):
            some = digests[start : start + _FILES_AT_ONCE]
            refs = await self._database.read(partial(_refs, project=name.project, digests=some))
            _keep_last(ends, refs)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, _check_packs, self._blobs, ends)


def _refs(tx: Transaction, *, project: str, digests: Sequence[bytes]) -> Iterable[ChunkRef]:
    """Return where the chunks of files lie, or refuse when one of them is not there."""
    files = store.find_files(tx.connection, project, digests)
    for digest in digests:
        if digest not in files:
            raise bytes_missing(digest)
    chunks = list({chunk for file in files.values() for chunk in file.chunks})
    refs = store.find_chunks(tx.connection, project, chunks)
    for chunk in chunks:
        if chunk not in refs:
            raise bytes_missing(chunk)
    return refs.values()


def _keep_last(ends: dict[str, ChunkRef], refs: Iterable[ChunkRef]) -> None:
    """Keep of each pack the chunk that reaches furthest."""
    for ref in refs:
        last = ends.get(ref.pack)
        if last is None or ref.offset > last.offset:
            ends[ref.pack] = ref


def _check_packs(blobs: BlobStore, ends: dict[str, ChunkRef]) -> None:
    for pack, last in ends.items():
        size = blobs.size(pack)
        if size is None or size < last.offset + last.length:
            raise bytes_missing(last.digest)
