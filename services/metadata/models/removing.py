"""The end of a model: deleted, restored, removed for ever.

It is decided under the model's lock, which everything that adds to a model takes: what goes
is needed by nothing, and nothing can come to need it. A purged model is gone at once; what
hangs on it, which may be much, is removed afterwards, part by part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from services.common.errors import ServiceError, etag_mismatch, not_found, wrong_state
from services.common.names import ModelName, ProjectName
from services.common.sql.database import Database, Transaction
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.models import removal_store, store
from services.metadata.models.domain import Model, in_use
from services.metadata.models.removal_store import Removal
from services.metadata.projects.store import hold_project

logger = logging.getLogger(__name__)


class Removing:
    """Deletes models, takes that back, and removes what is left of those that are gone."""

    def __init__(
        self, *, database: Database, clock: Callable[[], datetime], interval: timedelta
    ) -> None:
        self._database = database
        self._clock = clock
        self._interval = interval
        self._is_wanted = asyncio.Event()

    async def delete(self, name: ModelName, *, etag: str, actor: str) -> Model:
        """Delete a model that nothing needs; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, RESOURCE_IN_USE.
        """
        now = self._clock()

        def delete(tx: Transaction) -> Model:
            pk, model = _lock(tx, name)
            if etag and etag != str(model.revision):
                raise etag_mismatch(name, current=str(model.revision))
            if model.delete_time is not None:
                return model
            users = removal_store.users_of(tx.connection, pk, name)
            if users:
                raise in_use(name, users)
            removal_store.set_deleted(tx.connection, pk, now)
            _tell(tx, name, ChangeKind.MODEL_DELETED, "DELETED", actor)
            return _lock(tx, name)[1]

        return await self._database.write(delete)

    async def restore(self, name: ModelName, *, actor: str) -> Model:
        """Take back that a model was deleted; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when its project is deleted.
        """

        def restore(tx: Transaction) -> Model:
            pk, model = _lock(tx, name)
            if model.delete_time is None:
                return model
            hold_project(tx.connection, ProjectName(name.project))
            removal_store.set_deleted(tx.connection, pk, None)
            _tell(tx, name, ChangeKind.MODEL_RESTORED, "", actor)
            return _lock(tx, name)[1]

        return await self._database.write(restore)

    async def purge(self, name: ModelName, *, actor: str) -> None:
        """Remove a deleted model for ever; what hangs on it follows.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is not deleted.
        """

        def purge(tx: Transaction) -> None:
            pk, model = _lock(tx, name)
            if model.delete_time is None:
                raise wrong_state(name, "ACTIVE", f"{name} is not deleted; delete it first")
            removal_store.begin_removal(tx.connection, pk, name, actor)
            _tell(tx, name, ChangeKind.MODEL_PURGED, "PURGED", actor)

        await self._database.write(purge)
        self.begin()

    def begin(self) -> None:
        """Remove what is left of purged models now, not only when the time has come."""
        self._is_wanted.set()

    async def sweep_forever(self) -> None:
        """Remove what is left of purged models, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._is_wanted.wait()
            except TimeoutError:
                pass
            self._is_wanted.clear()
            try:
                await self._sweep()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("models not removed", extra={"reason": error.reason})

    async def _sweep(self) -> None:
        removals = await self._database.read(lambda tx: removal_store.list_removals(tx.connection))
        for removal in removals:
            while await self._remove_some(removal):
                pass

    async def _remove_some(self, removal: Removal) -> bool:
        now = self._clock()
        return await self._database.write(
            lambda tx: removal_store.remove_some(tx.connection, removal, now)
        )


def _lock(tx: Transaction, name: ModelName) -> tuple[int, Model]:
    pk = store.lock_model(tx.connection, name, deleted=True)
    model = store.find_model(tx.connection, name)
    if pk is None or model is None:
        raise not_found(name)
    return pk, model


def _tell(tx: Transaction, name: ModelName, kind: ChangeKind, word: str, actor: str) -> None:
    publish(tx, name.project, kind, Change(str(name), actor=actor, state=word))
