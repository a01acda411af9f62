"""Who works on what: leases, their signs of life, their end.

A lease is fenced: a number that rises with every change of hands goes with all
that a worker says, and what an earlier holder says is refused. Silence is
measured by this process's own monotonic clock against a counter of signs of life
in the database, so neither a jump of the wall clock nor a restart of the builder
costs a worker its build.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.builder import store, transitions
from services.builder.delegations import Delegations
from services.builder.domain import (
    Build,
    BuildState,
    Failure,
    FailureReason,
    Lease,
    Phase,
)
from services.builder.downstream import Downstream
from services.builder.queue import store as queue_store
from services.builder.queue.domain import Ask, Defaults
from services.builder.queue.queueing import Queue
from services.builder.spec import PhaseKind
from services.common.errors import Reason, ServiceError, wrong_state
from services.common.events import EventBus
from services.common.names import BuildName
from services.common.rpc.draining import Drain
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
NOTE_SECONDS = 15.0
_LOST = {Reason.RIGHT_MISSING, Reason.INVALID_CREDENTIAL}


@dataclass(frozen=True, slots=True)
class Extension:
    """What the holder of a lease is told."""

    expire_time: datetime
    cancel: bool
    delegation: str


class Scheduler:
    """Gives builds to workers and takes them back from the silent."""

    def __init__(
        self,
        *,
        database: Database,
        bus: EventBus,
        downstream: Downstream,
        delegations: Delegations,
        queue: Queue,
        clock: Callable[[], datetime],
        lease_seconds: float,
        retry_delay: timedelta,
    ) -> None:
        self._database = database
        self._bus = bus
        self._downstream = downstream
        self._delegations = delegations
        self._queue = queue
        self._clock = clock
        self._retry_delay = retry_delay
        self._seen: dict[BuildName, tuple[Lease, int, float]] = {}
        self.lease_seconds = lease_seconds

    async def lease(self, ask: Ask, *, wait: float, drain: Drain) -> Build | None:
        """Give a worker the build that is its turn; wait so many seconds, or to the drain."""
        deadline, noted = time.monotonic() + wait, -NOTE_SECONDS
        with self._bus.follow(transitions.QUEUE) as queue:
            while True:
                if time.monotonic() - noted >= NOTE_SECONDS:
                    noted = time.monotonic()
                    await self._note(ask)
                build = await self._take(ask)
                if build is not None:
                    return await self._prepare(build)
                remaining = deadline - time.monotonic()
                if remaining <= 0 or drain.begun:
                    return None
                await drain.until(queue.get(), seconds=min(remaining, POLL_SECONDS))

    async def extend(self, lease: Lease, *, wait: float, drain: Drain) -> Extension:
        """Take a sign of life; hold the answer back until there is a reason to stop, or a drain.

        Raises:
            ServiceError: LEASE_LOST, also while the answer is held back.
        """
        deadline = time.monotonic() + wait
        with self._bus.follow(transitions.RECALLS) as recalls:
            build = await self._database.write(lambda tx: _extend(tx, lease, self._clock()))
            while build.state is BuildState.RUNNING:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or drain.begun:
                    break
                await drain.until(recalls.get(), seconds=min(remaining, POLL_SECONDS))
                build = await self._database.lookup(lambda tx: transitions.look_held(tx, lease))
        cancel = build.state is BuildState.CANCELLING
        return Extension(self.expire_time(), cancel, build.delegation.credential)

    def expire_time(self) -> datetime:
        """Say when a lease ends that was extended now."""
        return self._clock() + timedelta(seconds=self.lease_seconds)

    async def report_phase(self, lease: Lease, phase: Phase) -> None:
        """Start or end a phase.

        Raises:
            ServiceError: LEASE_LOST; WRONG_STATE for a phase out of order.
        """
        await self._database.write(lambda tx: _report_phase(tx, lease, phase, self._clock()))

    async def end_attempt(self, lease: Lease, failure: Failure | None) -> None:
        """End an attempt without a version; it is followed by another as its budget allows."""
        now, delay = self._clock(), self._retry_delay
        await self._database.write(lambda tx: _end_attempt(tx, lease, failure, now, delay))

    async def expire(self) -> None:
        """Take builds away from workers that were silent for the length of a lease."""
        builds = await self._database.read(lambda tx: store.leased_builds(tx.connection))
        now, seen = time.monotonic(), self._seen
        self._seen = {}
        for build in builds:
            sign = (build.lease, build.beats)
            *known, since = seen.get(build.name, (*sign, now))
            since = since if tuple(known) == sign else now
            self._seen[build.name] = (*sign, since)
            if build.expirable and now - since >= self.lease_seconds:
                await self._lose(build)

    async def _lose(self, build: Build) -> None:
        now, delay = self._clock(), self._retry_delay
        await self._database.write(lambda tx: _expire(tx, build, now, delay))

    async def _note(self, ask: Ask) -> None:
        now = self._clock()
        await self._database.write(lambda tx: queue_store.note_worker(tx.connection, ask, now))

    async def _take(self, ask: Ask) -> Build | None:
        """Take a build; what was taken for a caller that is gone meanwhile is put back."""
        if not await self._database.lookup(
            lambda tx: queue_store.anything_queued(tx.connection, ask.pool)
        ):
            return None
        now, defaults = self._clock(), self._queue.defaults
        taking = asyncio.ensure_future(
            self._database.write(lambda tx: _take(tx, ask, defaults, now))
        )
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            build = await taking
            if build is not None:
                await self._database.write(lambda tx: _put_back(tx, build.lease, self._clock()))
            raise

    async def _prepare(self, build: Build) -> Build:
        """Give a new attempt its run; when that fails, put the build back as it was."""
        try:
            build = await self._delegations.fresh(build)
            run = await self._downstream.create_run(build)
        except (ServiceError, asyncio.CancelledError) as error:
            if isinstance(error, ServiceError) and error.reason in _LOST:
                await self._delegations.lose(build.name)
            else:
                await self._database.write(lambda tx: _put_back(tx, build.lease, self._clock()))
            raise
        return await self._database.write(lambda tx: _set_run(tx, build.lease, run))


def _take(tx: Transaction, ask: Ask, defaults: Defaults, now: datetime) -> Build | None:
    build = queue_store.take_next(tx.connection, ask, defaults, now)
    if build is None:
        return None
    started = transitions.start(tx, build, ask.worker, now)
    store.save_build(tx.connection, started)
    return started


def _put_back(tx: Transaction, lease: Lease, now: datetime) -> None:
    build = transitions.load_held(tx, lease)
    if build.state is BuildState.CANCELLING:
        back = transitions.end(tx, build, BuildState.CANCELLED, now)
    else:
        # The attempt never began; its number is used again, its fence is not.
        back = transitions.enqueue(tx, replace(build, attempt=build.attempt - 1), now)
    store.save_build(tx.connection, back)


def _set_run(tx: Transaction, lease: Lease, run: str) -> Build:
    build = replace(transitions.load_held(tx, lease), run=run)
    store.save_build(tx.connection, build)
    return build


def _extend(tx: Transaction, lease: Lease, now: datetime) -> Build:
    build = transitions.load_held(tx, lease)
    build = replace(build, beats=build.beats + 1)
    store.save_build(tx.connection, build)
    queue_store.note_sign(tx.connection, build.worker, now)
    return build


def _report_phase(tx: Transaction, lease: Lease, phase: Phase, now: datetime) -> None:
    build = transitions.load_held(tx, lease)
    index = list(PhaseKind).index(phase.kind)
    if build.phases[index].state is phase.state:
        return  # the repeat of a call whose answer was lost
    moved = transitions.move_phase(tx, build, phase, now)
    store.save_build(tx.connection, replace(moved, beats=build.beats + 1))


def _end_attempt(
    tx: Transaction, lease: Lease, failure: Failure | None, now: datetime, delay: timedelta
) -> None:
    build = transitions.load_held(tx, lease)
    if build.winner is not None:
        message = f"{build.name} is being registered and cannot end otherwise"
        raise wrong_state(build.name, build.state.value, message)
    if failure is None or build.state is BuildState.CANCELLING:
        ended = transitions.end(tx, build, BuildState.CANCELLED, now)
    else:
        ended = transitions.fail_attempt(tx, build, failure, now, first_delay=delay)
    store.save_build(tx.connection, ended)


def _expire(tx: Transaction, seen: Build, now: datetime, delay: timedelta) -> None:
    build = transitions.load(tx, seen.name)
    if not build.held_by(seen.lease) or build.beats != seen.beats or not build.expirable:
        return
    message = f"worker {build.worker} was not heard of for the length of its lease"
    failure = Failure(FailureReason.WORKER_LOST, message)
    lost = transitions.fail_attempt(tx, build, failure, now, first_delay=delay)
    store.save_build(tx.connection, lost)
    logger.warning("lease expired", extra={"build": str(build.name), "worker": build.worker})
