"""What may still happen to a version: edited, archived, deleted, and each taken back.

All of it is decided under the lock of the version's model, as are alias moves and
the beginnings of uses: a version that goes is not needed by anything, and nothing
can come to need it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from services.common.errors import etag_mismatch, not_found, wrong_state
from services.common.names import VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.lineage.store import current_users
from services.metadata.models import lifecycle_store, releases_store, version_store
from services.metadata.models.domain import Standing, Version, VersionEdit, in_use
from services.metadata.models.releases_store import Release
from services.metadata.models.releasing import Releasing


class Lifecycle:
    """Changes versions after they came to be, up to their end."""

    def __init__(
        self, *, database: Database, releasing: Releasing, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._releasing = releasing
        self._clock = clock

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

    async def purge(self, name: VersionName, *, actor: str) -> None:
        """Remove a deleted version for ever, and give its bytes back.

        It is gone for everyone when this returns; its bytes follow when the artifact
        service is there.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is not deleted.
        """
        now, release = self._clock(), Release(str(name), actor)

        def purge(tx: Transaction) -> None:
            standing = _lock(tx, name)
            if not standing.is_deleted:
                message = f"{name} is {standing.word}; delete it first"
                raise wrong_state(name, standing.word, message)
            lifecycle_store.remove_versions(tx.connection, [standing.pk])
            releases_store.owe(tx.connection, [release], now)
            _tell(tx, name, ChangeKind.VERSION_PURGED, "PURGED", actor)

        await self._database.write(purge)
        await self._releasing.release(release)


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
