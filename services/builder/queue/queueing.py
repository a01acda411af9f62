"""The queue as people see and steer it: limits, workers, why builds wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.builder import transitions
from services.builder.domain import Build, BuildState
from services.builder.queue import store
from services.builder.queue.domain import KEPT, Defaults, Scope, Standing, Worker, short_of
from services.builder.spec import BuildSpec
from services.common.sql.database import Database, Transaction

ALIVE = timedelta(seconds=45)
"""How long a worker counts as alive that was not heard of; one that waits asks every 30 s."""


class Queue:
    """What takes builds out of the queue, and what keeps them in."""

    def __init__(
        self, *, database: Database, defaults: Defaults, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._clock = clock
        self.defaults = defaults

    async def explained(self, builds: Sequence[Build]) -> list[Build]:
        """Say of each queued build why it waits."""
        if not any(build.state is BuildState.QUEUED for build in builds):
            return list(builds)
        now = self._clock()
        situation = await self._database.read(
            lambda tx: store.situation(tx.connection, self.defaults, now, alive=ALIVE)
        )
        return situation.explained(builds)

    async def refuse_over_ask(self, spec: BuildSpec) -> None:
        """Refuse with CAPACITY_EXCEEDED what no worker of the pool has; see `short_of`."""
        if not spec.resources.asks:
            return
        since = self._clock() - KEPT
        refusal = short_of(
            spec,
            await self._database.read(
                lambda tx: store.heard_of(tx.connection, since=since, pool=spec.pool)
            ),
        )
        if refusal is not None:
            raise refusal

    async def standing(self, scope: Scope) -> Standing:
        """Return a scope's limits and how it stands with them."""
        return await self._database.read(
            lambda tx: store.standing(tx.connection, scope, self.defaults)
        )

    async def set_limit(self, scope: Scope, maximum: int | None) -> Standing:
        """Set a scope's own limit; None: the default holds."""
        return await self._database.write(lambda tx: self._set_limit(tx, scope, maximum))

    async def workers(self, *, pool: str, lost: bool) -> list[Worker]:
        """Return the workers that are alive, or all that were heard of lately."""
        now = self._clock()
        since = now - (KEPT if lost else ALIVE)

        def look(tx: Transaction) -> list[Worker]:
            builds = store.builds_by_worker(tx.connection)
            return [
                replace(
                    worker,
                    builds=tuple(builds.get(worker.worker, ())),
                    alive=worker.sign_time >= now - ALIVE,
                )
                for worker in store.heard_of(tx.connection, since=since, pool=pool)
            ]

        return await self._database.read(look)

    async def forget_lost(self) -> None:
        """Forget the workers that were lost long ago."""
        now = self._clock()
        await self._database.write(lambda tx: store.forget_workers(tx.connection, now))

    def _set_limit(self, tx: Transaction, scope: Scope, maximum: int | None) -> Standing:
        store.set_limit(tx.connection, scope, maximum)
        transitions.wake_workers(tx)
        return store.standing(tx.connection, scope, self.defaults)
