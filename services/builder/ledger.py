"""A build's ledger: batches of events, in one order, read from any place while it grows.

Log batches come from the worker and are kept as they are; events about phases and
states are the builder's own, written in the transaction of the change they tell.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Protocol

from services.builder import store
from services.builder.domain import Build, Lease, lease_lost, topic_of
from services.common.errors import Reason, ServiceError, not_found
from services.common.events import EventBus, tail
from services.common.listing import pagination
from services.common.names import BuildName
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import Event, first_sequence, last_sequence, read_events

BATCH = "batch"
CHANGE = "change"
END = "end"
CURSOR_SECONDS = 5.0
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored batch and the cursor that goes on after it; no batch: all is quiet."""

    batch: bytes
    cursor: str


class Wanted(Protocol):
    """What somebody wants to see of a build's events."""

    @property
    def tail(self) -> int:
        """With how many of the last events to begin; 0: with the first of all."""

    def select(self, batch: bytes) -> bytes:
        """Return a batch cut down to what is wanted."""

    def last(self, batch: bytes, count: int) -> tuple[bytes, int]:
        """Return the last so many events of a batch, and how many they are."""


class Ledger:
    """Appends to and reads the ledgers of builds."""

    def __init__(self, *, database: Database, bus: EventBus) -> None:
        self._database = database
        self._bus = bus

    async def append(self, lease: Lease, sequence: int, batch: bytes) -> int:
        """Keep a worker's batch; return up to which one of the attempt all are durable.

        Raises:
            ServiceError: LEASE_LOST, SEQUENCE_GAP.
        """
        return await self._database.write(lambda tx: _append(tx, lease, sequence, batch))

    async def follow(
        self, name: BuildName, cursor: str, *, follow: bool, wanted: Wanted | None = None
    ) -> AsyncIterator[Entry]:
        """Yield the batches after a cursor; end after the last of a build that ended.

        Without `follow`, end after the last there is now. `wanted` cuts batches down; without
        it they are yielded as they are stored.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_CURSOR; CURSOR_EXPIRED when what follows
                the cursor was trimmed.
        """
        if wanted is None:
            async for entry in self._follow(name, cursor, follow=follow):
                yield entry
            return
        if wanted.tail:
            entries, cursor = await self._tail(name, wanted)
            for entry in entries:
                yield entry
            yield Entry(b"", cursor)
        told = time.monotonic()
        async for entry in self._follow(name, cursor, follow=follow):
            batch = wanted.select(entry.batch)
            # Also when nothing is wanted for long a cursor goes out: nobody greps it all again.
            if batch or not entry.batch or time.monotonic() - told >= CURSOR_SECONDS:
                told = time.monotonic()
                yield Entry(batch, entry.cursor)

    async def _follow(self, name: BuildName, cursor: str, *, follow: bool) -> AsyncIterator[Entry]:
        key = pagination.decode_cursor(cursor, _stream(name), tuple[int])
        build, first, last = await self._database.read(lambda tx: _position(tx, name))
        # Who begins gets what is kept; who goes on must not miss anything.
        after = key[0] if key else max(first - 1, 0)
        if after + 1 < first:
            raise pagination.cursor_expired()
        if build.state.ended or not follow:
            async for events in self._stored(build.topic, after, last):
                for event in events:
                    yield _entry(name, event)
            return
        async for events in tail(self._database, self._bus, build.topic, after):
            for event in events:
                after = event.sequence
                yield _entry(name, event)
                if event.kind == END:
                    return
            if not events:
                yield Entry(b"", pagination.encode_cursor(_stream(name), (after,)))

    async def _tail(self, name: BuildName, wanted: Wanted) -> tuple[list[Entry], str]:
        """Return the last events that are wanted, and the cursor after all there are."""
        build, first, last = await self._database.read(lambda tx: _position(tx, name))
        entries: list[Entry] = []
        missing, end = wanted.tail, last
        while missing and end >= max(first, 1):
            start = max(end - _PAGE, first - 1, 0)
            page = await self._database.read(
                lambda tx, after=start, limit=end - start: read_events(  # type: ignore[misc]
                    tx.connection, build.topic, after, limit
                )
            )
            for event in reversed(page):
                batch, count = wanted.last(wanted.select(event.payload), missing)
                if count:
                    entries.append(replace(_entry(name, event), batch=batch))
                missing -= count
                if not missing:
                    break
            end = start
        return entries[::-1], pagination.encode_cursor(_stream(name), (last,))

    async def _stored(self, topic: str, after: int, last: int) -> AsyncIterator[list[Event]]:
        while after < last:
            events = await self._database.read(
                lambda tx, after=after: read_events(tx.connection, topic, after, _PAGE)  # type: ignore[misc]
            )
            if not events:
                return
            yield [event for event in events if event.sequence <= last]
            after = events[-1].sequence


def _append(tx: Transaction, lease: Lease, sequence: int, batch: bytes) -> int:
    acknowledged = store.find_claim(tx.connection, lease)
    if acknowledged is None:
        raise lease_lost(lease.build)
    if sequence <= acknowledged:
        return acknowledged
    if sequence > acknowledged + 1:
        message = f"batch {sequence} does not follow batch {acknowledged}"
        raise ServiceError(Reason.SEQUENCE_GAP, message, acknowledged_sequence=str(acknowledged))
    store.note_batch(tx.connection, lease.build, sequence)
    tx.publish(topic_of(lease.build), BATCH, batch)
    return sequence


def _position(tx: Transaction, name: BuildName) -> tuple[Build, int, int]:
    """Return a build, and the first and the last place of its ledger that are kept."""
    build = store.find_build(tx.connection, name)
    if build is None:
        raise not_found(name)
    first, last = (edge(tx.connection, build.topic) for edge in (first_sequence, last_sequence))
    return build, first, last


def _stream(name: BuildName) -> str:
    return f"build-events\n{name}"


def _entry(name: BuildName, event: Event) -> Entry:
    return Entry(event.payload, pagination.encode_cursor(_stream(name), (event.sequence,)))
