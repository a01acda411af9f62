"""What may still happen to a version: edited, archived, deleted, and each taken back.

All of it is decided under the lock of the version's model, as are alias moves and
the beginnings of uses: a version that goes is not needed by anything, and nothing
can come to need it. Giving a purged version's bytes back is a crossing to the
artifact service; this file owns it, and finishes what was left half done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from services.common.auth import Right
from services.common.database import Database, Transaction
from services.common.errors import ServiceError, etag_mismatch, not_found, wrong_state
from services.common.idempotency import Key, once
from services.common.names import VersionName
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.lineage.store import current_users
from services.metadata.models import lifecycle_store, version_store
from services.metadata.models.artifacts import Holds
from services.metadata.models.domain import PurgedVersion, Standing, Version, VersionEdit, in_use
from services.metadata.projects.access import Access

logger = logging.getLogger(__name__)

RELEASE_SECONDS = 10.0
SWEEP_BATCH = 100


class Lifecycle:
    """Changes versions after they came to be, up to their end."""

    def __init__(
        self,
        *,
        database: Database,
        holds: Holds,
        access: Access,
        clock: Callable[[], datetime],
        interval: timedelta,
    ) -> None:
        self._database = database
        self._holds = holds
        self._access = access
        self._clock = clock
        self._interval = interval

    async def edit(
        self,
        name: VersionName,
        edit: VersionEdit,
        *,
        paths: Collection[str],
        etag: str,
        actor: str,
        key: Key | None,
    ) -> Version:
        """Change the fields named by `paths`.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """

        def change(tx: Transaction) -> Version:
            standing = _lock(tx, name, etag)
            if paths:
                lifecycle_store.edit_version(tx.connection, standing.pk, edit, paths)
                _tell(tx, name, ChangeKind.VERSION_UPDATED, standing.word, actor)
            return _read(tx, name)

        return await self._database.write(lambda tx: once(tx, key, Version, lambda: change(tx)))

    async def archive(self, name: VersionName, *, etag: str, actor: str) -> Version:
        """Archive a version that nothing needs; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE.
        """
        now = self._clock()

        def archive(tx: Transaction) -> Version:
            standing = _lock(tx, name, etag)
            if not standing.is_archived:
                _check_unused(tx, name, standing)
                lifecycle_store.set_archived(tx.connection, standing.pk, now)
                _tell(tx, name, ChangeKind.VERSION_ARCHIVED, "ARCHIVED", actor)
            return _read(tx, name)

        return await self._database.write(archive)

    async def unarchive(self, name: VersionName, *, actor: str) -> Version:
        """Take back that a version was archived."""

        def unarchive(tx: Transaction) -> Version:
            standing = _lock(tx, name)
            if standing.is_archived:
                lifecycle_store.set_archived(tx.connection, standing.pk, None)
                _tell(tx, name, ChangeKind.VERSION_UNARCHIVED, standing.state.value, actor)
            return _read(tx, name)

        return await self._database.write(unarchive)

    async def delete(self, name: VersionName, *, etag: str, actor: str) -> Version:
        """Delete a version that nothing needs; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE.
        """
        now = self._clock()

        def delete(tx: Transaction) -> Version:
            standing = _lock(tx, name, etag)
            if not standing.is_deleted:
                _check_unused(tx, name, standing)
                lifecycle_store.set_deleted(tx.connection, standing.pk, now)
                _tell(tx, name, ChangeKind.VERSION_DELETED, "DELETED", actor)
            return _read(tx, name)

        return await self._database.write(delete)

    async def restore(self, name: VersionName, *, actor: str) -> Version:
        """Take back that a version was deleted."""

        def restore(tx: Transaction) -> Version:
            standing = _lock(tx, name)
            if standing.is_deleted:
                lifecycle_store.set_deleted(tx.connection, standing.pk, None)
                word = "ARCHIVED" if standing.is_archived else standing.state.value
                _tell(tx, name, ChangeKind.VERSION_RESTORED, word, actor)
            return _read(tx, name)

        return await self._database.write(restore)

    async def purge(self, name: VersionName, *, actor: str, credential: str) -> None:
        """Remove a deleted version for ever, and give its bytes back.

        It is gone for everyone when this returns; its bytes follow when the artifact
        service is there.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is not deleted.
        """
        now = self._clock()

        def begin(tx: Transaction) -> PurgedVersion | None:
            standing = _lock(tx, name)
            if not standing.is_deleted:
                message = f"{name} is {standing.word}; delete it first"
                raise wrong_state(name, standing.word, message)
            lifecycle_store.begin_purge(tx.connection, standing.pk, purger=actor, now=now)
            _tell(tx, name, ChangeKind.VERSION_PURGED, "PURGED", actor)
            return lifecycle_store.find_purged(tx.connection, name)

        purged = await self._database.write(begin)
        if purged is not None:
            await self._finish(purged, credential)

    async def sweep_forever(self) -> None:
        """Finish purges left half done, until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                await self.sweep()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("purges not swept", extra={"reason": error.reason})

    async def sweep(self) -> None:
        """Try once to finish every purge that was left half done."""
        before = self._clock() - self._interval
        waiting = await self._database.read(
            lambda tx: lifecycle_store.list_purged(tx.connection, before=before, limit=SWEEP_BATCH)
        )
        for purged in waiting:
            rights = (Right.READ, Right.WRITE)
            issued = self._access.mint(purged.purger, str(purged.name), rights)
            await self._finish(purged, issued.credential)

    async def _finish(self, purged: PurgedVersion, credential: str) -> None:
        """Give a purged version's bytes back and forget it; later if that cannot be now."""
        name = purged.name
        try:
            await self._holds.release(
                purged.artifact, str(name), credential=credential, seconds=RELEASE_SECONDS
            )
        except ServiceError as error:
            logger.warning("bytes kept", extra={"version": str(name), "reason": error.reason})
            now = self._clock()
            await self._database.write(
                lambda tx: lifecycle_store.defer_purge(tx.connection, name, now)
            )
            return
        await self._database.write(lambda tx: lifecycle_store.end_purge(tx.connection, name))


def _lock(tx: Transaction, name: VersionName, etag: str = "") -> Standing:
    standing = version_store.lock_version(tx.connection, name)
    if etag and etag != str(standing.revision):
        raise etag_mismatch(name, current=str(standing.revision))
    return standing


def _check_unused(tx: Transaction, name: VersionName, standing: Standing) -> None:
    aliases = lifecycle_store.aliases_of(tx.connection, standing.pk)
    users = [str(name.parent.alias(alias)) for alias in aliases]
    users += current_users(tx.connection, standing.pk)
    if users:
        raise in_use(name, users)


def _read(tx: Transaction, name: VersionName) -> Version:
    version = version_store.find_version(tx.connection, name)
    if version is None:
        raise not_found(name)
    return version


def _tell(tx: Transaction, name: VersionName, kind: ChangeKind, word: str, actor: str) -> None:
    publish(tx, name.project, kind, Change(str(name), actor=actor, state=word))
