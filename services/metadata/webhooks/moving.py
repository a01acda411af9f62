"""From the ledger to the queues: each change to the webhooks that want it, once.

A webhook's cursor and its new deliveries are written in one transaction, under a lock
of its row, so that replicas neither double nor lose a change. Events on the bus only
say when to look; the ledger is looked at now and then without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from datetime import datetime
from itertools import takewhile

from services.common.errors import ServiceError
from services.common.events import EventBus
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import read_events
from services.metadata.changes import topic
from services.metadata.watching.domain import Told
from services.metadata.webhooks import bodies, delivery_store, filters, store
from services.metadata.webhooks.domain import Parcel
from services.metadata.webhooks.store import Subscriber

logger = logging.getLogger(__name__)

PAGE = 200


class Mover:
    """Follows the ledgers of the projects that have webhooks."""

    def __init__(
        self,
        *,
        database: Database,
        bus: EventBus,
        clock: Callable[[], datetime],
        poll_seconds: float,
        moved: Callable[[], None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._poll = poll_seconds
        self._moved = moved
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look for new webhooks at once."""
        self._woken.set()

    async def run_forever(self) -> None:
        """Follow, until cancelled."""
        followers: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._woken.clear()
                projects = await self._projects()
                for project in projects - followers.keys():
                    followers[project] = tasks.create_task(self._follow(project))
                for project in followers.keys() - projects:
                    followers.pop(project).cancel()
                await _first(self._woken.wait(), self._poll)

    async def move(self, project: str) -> bool:
        """Move a page of a project's changes; say whether there may be more."""
        if not await self._database.read(lambda tx: store.is_behind(tx.connection, project)):
            return False
        now = self._clock()
        count, more = await self._database.write(lambda tx: _move(tx, project, now))
        if count:
            self._moved()
        return more

    async def _projects(self) -> set[str]:
        try:
            return await self._database.read(lambda tx: store.subscribed_projects(tx.connection))
        except ServiceError as error:  # the database is away; it is asked again
            logger.warning("webhooks not read", extra={"reason": error.reason})
            return set()

    async def _follow(self, project: str) -> None:
        with self._bus.follow(topic(project)) as queue:
            while True:
                while not queue.empty():
                    queue.get_nowait()
                try:
                    if await self.move(project):
                        continue
                except ServiceError as error:  # the database is away; it is asked again
                    logger.warning("changes not moved", extra={"reason": error.reason})
                    await asyncio.sleep(self._poll)
                await _first(queue.get(), self._poll)


def _move(tx: Transaction, project: str, now: datetime) -> tuple[int, bool]:
    """Move the next changes; return how many deliveries that made, and whether more may come."""
    subscribers = store.lock_subscribers(tx.connection, project)
    if not subscribers:
        return 0, False
    after = min(subscriber.cursor for subscriber in subscribers)
    events = read_events(tx.connection, topic(project), after, PAGE)
    # What only a newer release knows is left, with all after it, to a replica of that one.
    told = [filters.told(event) for event in takewhile(filters.is_known, events)]
    if not told:
        return 0, False
    until, count = told[-1].sequence, 0
    for subscriber in subscribers:
        if subscriber.cursor < until:
            parcels = _parcels(subscriber, told)
            time = max(now, subscriber.queue_time)
            delivery_store.add_deliveries(tx.connection, subscriber.pk, parcels, time)
            store.advance(tx.connection, subscriber.pk, until, time)
            count += len(parcels)
    return count, len(told) == PAGE


def _parcels(subscriber: Subscriber, told: list[Told]) -> list[Parcel]:
    """Wrap up what a webhook has not seen and wants."""
    try:
        matches = filters.compiled(subscriber.filter)
    except ServiceError as error:  # written for a release with other words
        extra = {"webhook": str(subscriber.name), "reason": error.reason}
        logger.error("a webhook's filter is not understood: it is told nothing", extra=extra)
        return []
    return [
        bodies.of_change(subscriber.name.project, one)
        for one in told
        if one.sequence > subscriber.cursor and matches(one)
    ]


async def _first(arrival: Coroutine[object, object, object], seconds: float) -> None:
    """Wait for something to arrive, but not for longer than some seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await arrival
