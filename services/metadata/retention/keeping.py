"""Following the rules of retention: setting them, and taking what nothing keeps.

What goes is deleted and purged as anyone would do it, version by version: a
version that came to be needed since it was judged is refused there, and stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from services.common.errors import Reason, ServiceError, etag_mismatch, not_found
from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.models.lifecycle import Lifecycle
from services.metadata.models.store import lock_model
from services.metadata.retention import store
from services.metadata.retention.domain import Action, Retention, Rules, Verdict, judge

logger = logging.getLogger(__name__)

CANDIDATES = 10_000
STAYED = frozenset({Reason.RESOURCE_IN_USE, Reason.RESOURCE_NOT_FOUND, Reason.WRONG_STATE})


class Keeping:
    """Keeps of a model's versions those that its rules keep."""

    def __init__(
        self,
        *,
        database: Database,
        lifecycle: Lifecycle,
        clock: Callable[[], datetime],
        interval: timedelta,
    ) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._clock = clock
        self._interval = interval

    async def set(
        self, model: ModelName, rules: Rules, *, etag: str, setter: str, key: Key | None
    ) -> Retention:
        """Set a model's rules.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """
        now = self._clock()

        def put(tx: Transaction) -> Retention:
            pk = lock_model(tx.connection, model)
            if pk is None:
                raise not_found(model)
            old = store.find_retention(tx.connection, model)
            revision = old.revision if old else 0
            if etag and etag != str(revision):
                raise etag_mismatch(model, current=str(revision))
            retention = Retention(model, rules, revision + 1, setter, now)
            store.put_retention(tx.connection, pk, retention)
            return retention

        return await self._database.write(lambda tx: once(tx, key, Retention, lambda: put(tx)))

    async def get(self, model: ModelName) -> Retention:
        """Return a model's rules, or refuse with RESOURCE_NOT_FOUND."""
        found = await self._database.read(lambda tx: store.find_retention(tx.connection, model))
        if found is None:
            raise not_found(f"{model}/retention")
        return found

    async def remove(self, model: ModelName) -> None:
        """Remove a model's rules; there may be none."""

        def remove(tx: Transaction) -> None:
            pk = lock_model(tx.connection, model)
            if pk is not None:
                store.delete_retention(tx.connection, pk)

        await self._database.write(remove)

    async def apply(self, model: ModelName, *, dry_run: bool) -> list[Verdict]:
        """Follow a model's rules; return what became, or would become, of each version.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND when it has none.
        """
        retention = await self.get(model)
        now = self._clock()
        candidates = await self._database.read(
            lambda tx: store.list_candidates(tx.connection, model, limit=CANDIDATES)
        )
        verdicts = list(judge(retention.rules, candidates, now))
        if dry_run:
            return verdicts
        return [await self._carry_out(verdict, retention.setter) for verdict in verdicts]

    async def run_forever(self) -> None:
        """Follow every model's rules now and then, until cancelled."""
        while True:
            await asyncio.sleep(self._interval.total_seconds())
            try:
                for retention in await self._database.read(
                    lambda tx: store.list_retentions(tx.connection)
                ):
                    await self.apply(retention.model, dry_run=False)
            except ServiceError as error:  # the database is away, or the rules just went
                logger.warning("retention not followed", extra={"reason": error.reason})

    async def _carry_out(self, verdict: Verdict, setter: str) -> Verdict:
        try:
            if verdict.action is Action.DELETE:
                await self._lifecycle.delete(verdict.name, etag="", actor=setter)
            if verdict.action is Action.PURGE:
                await self._lifecycle.purge(verdict.name, actor=setter)
        except ServiceError as error:
            if error.reason not in STAYED:
                raise
            return Verdict(verdict.name, Action.KEEP, (error.message,))
        return verdict
