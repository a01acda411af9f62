"""The tracker of runs: starting, ending, finding those that vanished."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from services.common.errors import ServiceError, already_exists, not_found, wrong_state
from services.common.names import ModelName, RunName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import ChangeKind
from services.metadata.models.registry import ensure_model
from services.metadata.runs import ingest_store, store
from services.metadata.runs.domain import (
    HEARTBEAT_LOST,
    Run,
    RunDraft,
    RunState,
    is_presumed,
    run_deleted,
    started,
)
from services.metadata.runs.news import publish_run
from services.metadata.values import Failure

logger = logging.getLogger(__name__)

T = TypeVar("T")

SWEEP_BATCH = 500


class Tracker:
    """Keeps runs."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        silence: timedelta,
        interval: timedelta,
    ) -> None:
        self._database = database
        self._clock = clock
        self._silence = silence
        self._interval = interval

    async def create(
        self, parent: ModelName, run_id: str, draft: RunDraft, *, creator: str, key: Key | None
    ) -> Run:
        """Start a run; an empty `run_id` is allotted.

        Raises:
            ServiceError: RESOURCE_EXISTS; RESOURCE_NOT_FOUND when there is no such project.
        """
        name = RunName(parent.project, parent.model, run_id or f"run-{secrets.token_hex(8)}")
        run = started(name, draft, creator=creator, now=self._clock())

        def create(tx: Transaction) -> Run:
            if store.insert_run(tx.connection, run) is None:
                ensure_model(tx, parent, run.create_time, creator)
                if store.insert_run(tx.connection, run) is None:
                    raise already_exists(name)
            publish_run(tx, ChangeKind.RUN_CREATED, run, actor=creator)
            return run

        return await self._database.write(
            lambda tx: once(tx, key, Run, lambda: create(tx), expected=run), locks=str(parent)
        )

    async def get(self, name: RunName) -> Run:
        """Return a run with everything that is known of it."""
        found = await self._database.read(lambda tx: store.find_run(tx.connection, name))
        return _found(found, name)

    async def position(self, name: RunName, writer: str) -> int:
        """Return up to where a writer's batches are kept."""

        def find(tx: Transaction) -> int:
            pk = _found(store.find_run_pk(tx.connection, name), name)
            return ingest_store.position(tx.connection, pk, writer)

        return await self._database.read(find)

    async def finish(
        self, name: RunName, state: RunState, failure: Failure | None, *, actor: str
    ) -> Run:
        """End a run; that it was presumed lost gives way to what its client says.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it ended in another state.
        """
        now = self._clock()

        def finish(tx: Transaction) -> Run:
            row = _found(store.lock_run(tx.connection, name), name)
            if row.delete_time is not None:
                raise run_deleted(name)
            ended = RunState(row.state)
            if ended is RunState.RUNNING or is_presumed(ended, row.failure_reason):
                store.set_ended(tx.connection, row.pk, state, failure, now)
            elif ended is not state:
                raise wrong_state(name, ended, f"{name} has ended, {ended}")
            run = _found(store.find_run(tx.connection, name), name)
            if ended is not state:
                publish_run(tx, ChangeKind.RUN_ENDED, run, actor=actor)
            return run

        return await self._database.write(finish, locks=str(name.parent))

    async def sweep_forever(self) -> None:
        """Fail runs that fell silent, until cancelled.

        It begins one silence after the start: while the service was away, no
        client could be heard.
        """
        await asyncio.sleep(self._silence.total_seconds())
        while True:
            try:
                await self.sweep()
            except ServiceError as error:  # the database is away; it is asked again
                logger.warning("silent runs not swept", extra={"reason": error.reason})
            await asyncio.sleep(self._interval.total_seconds())

    async def sweep(self) -> None:
        """Fail the runs that have been silent for too long."""
        now = self._clock()
        message = f"nothing was heard of the run for {self._silence.total_seconds():.0f} s"
        failure = Failure(HEARTBEAT_LOST, message)

        def fail(tx: Transaction) -> list[RunName]:
            before = now - self._silence
            names = store.fail_silent(
                tx.connection, before=before, failure=failure, now=now, limit=SWEEP_BATCH
            )
            for name in names:
                run = _found(store.find_run(tx.connection, name), name)
                publish_run(tx, ChangeKind.RUN_ENDED, run)
            return names

        for name in await self._database.write(fail):
            logger.info("run fell silent", extra={"run": str(name)})


def _found(value: T | None, name: RunName) -> T:
    if value is None:
        raise not_found(name)
    return value
