"""The upkeep of runs: edited, deleted, restored, removed for ever."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from services.common.errors import etag_mismatch, not_found, wrong_state
from services.common.names import RunName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import ChangeKind
from services.metadata.models import releases_store
from services.metadata.models.domain import USERS_NAMED, in_use
from services.metadata.models.releases_store import Release
from services.metadata.models.releasing import Releasing
from services.metadata.models.store import lock_model
from services.metadata.runs import store, upkeep_store
from services.metadata.runs.domain import Run, RunEdit, RunState
from services.metadata.runs.news import publish_run


class Upkeep:
    """Changes runs after they came to be, up to their end."""

    def __init__(
        self, *, database: Database, releasing: Releasing, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._releasing = releasing
        self._clock = clock

    async def edit(
        self,
        name: RunName,
        edit: RunEdit,
        *,
        paths: Collection[str],
        etag: str,
        actor: str,
        key: Key | None,
    ) -> Run:
        """Change the fields named by `paths`.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """

        def change(tx: Transaction) -> Run:
            pk, run = _lock(tx, name, etag)
            if not paths:
                return run
            upkeep_store.edit_run(tx.connection, pk, edit, paths)
            return _tell(tx, name, ChangeKind.RUN_UPDATED, actor)

        return await self._database.write(lambda tx: once(tx, key, Run, lambda: change(tx)))

    async def delete(self, name: RunName, *, etag: str, actor: str) -> Run:
        """Delete a run that has ended and that no version came from; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, RESOURCE_IN_USE.
        """
        now = self._clock()

        def delete(tx: Transaction) -> Run:
            pk, run = _lock(tx, name, etag)
            if run.delete_time is not None:
                return run
            if run.state is RunState.RUNNING:
                raise wrong_state(name, run.state, f"{name} is running; end it first")
            users = upkeep_store.versions_of(tx.connection, name, limit=USERS_NAMED + 1)
            if users:
                raise in_use(name, [str(user) for user in users])
            upkeep_store.set_deleted(tx.connection, pk, now)
            return _tell(tx, name, ChangeKind.RUN_DELETED, actor)

        return await self._database.write(delete)

    async def restore(self, name: RunName, *, actor: str) -> Run:
        """Take back that a run was deleted; again changes nothing."""

        def restore(tx: Transaction) -> Run:
            pk, run = _lock(tx, name)
            if run.delete_time is None:
                return run
            upkeep_store.set_deleted(tx.connection, pk, None)
            return _tell(tx, name, ChangeKind.RUN_RESTORED, actor)

        return await self._database.write(restore)

    async def purge(self, name: RunName, *, actor: str) -> None:
        """Remove a deleted run and its metrics for ever, and give the bytes that it held back.

        It is gone for everyone when this returns; its bytes follow when the artifact
        service is there.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is not deleted.
        """
        release = Release(str(name), actor)

        def purge(tx: Transaction) -> None:
            pk, run = _lock(tx, name)
            if run.delete_time is None:
                raise wrong_state(name, run.state, f"{name} is not deleted; delete it first")
            upkeep_store.remove_run(tx.connection, pk)
            releases_store.owe(tx.connection, [release], self._clock())
            publish_run(tx, ChangeKind.RUN_PURGED, run, actor=actor)

        await self._database.write(purge)
        await self._releasing.release(release)


def _lock(tx: Transaction, name: RunName, etag: str = "") -> tuple[int, Run]:
    # Versions are made under the same lock: none can come to need the run meanwhile.
    lock_model(tx.connection, name.parent)
    row = store.lock_run(tx.connection, name)
    run = store.find_run(tx.connection, name)
    if row is None or run is None:
        raise not_found(name)
    if etag and etag != str(run.revision):
        raise etag_mismatch(name, current=str(run.revision))
    return row.pk, run


def _tell(tx: Transaction, name: RunName, kind: ChangeKind, actor: str) -> Run:
    run = store.find_run(tx.connection, name)
    if run is None:
        raise not_found(name)
    publish_run(tx, kind, run, actor=actor)
    return run
