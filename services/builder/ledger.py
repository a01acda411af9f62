"""A build's ledger: batches of events, in one order, read from any place while it grows.

Log batches come from the worker and are kept as they are; events about phases and
states are the builder's own, written in the transaction of the change they tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from services.builder import store
from services.builder.domain import Build, Lease, lease_lost
from services.common import pagination
from services.common.database import Database, Transaction
from services.common.errors import Reason, ServiceError, not_found
from services.common.events import EventBus, tail
from services.common.names import BuildName
from services.common.outbox import Event, last_sequence, read_events

BATCH = "batch"
CHANGE = "change"
END = "end"
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored batch and the cursor that goes on after it; no batch: all is quiet."""

    batch: bytes
    cursor: str


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

    async def follow(self, name: BuildName, cursor: str, *, follow: bool) -> AsyncIterator[Entry]:
        """Yield the batches after a cursor; end after the last of a build that ended.

        Without `follow`, end after the last there is now.
        """
        key = pagination.decode_cursor(cursor, _stream(name), tuple[int])
        after = key[0] if key else 0
        build, last = await self._database.read(lambda tx: _position(tx, name))
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
    build = store.find_build(tx.connection, lease.build, lock=True)
    if build is None or not build.held_by(lease):
        raise lease_lost(lease.build)
    if sequence <= build.acknowledged:
        return build.acknowledged
    if sequence > build.acknowledged + 1:
        message = f"batch {sequence} does not follow batch {build.acknowledged}"
        raise ServiceError(
            Reason.SEQUENCE_GAP, message, acknowledged_sequence=str(build.acknowledged)
        )
    store.save_build(tx.connection, replace(build, acknowledged=sequence, beats=build.beats + 1))
    tx.publish(build.topic, BATCH, batch)
    return sequence


def _position(tx: Transaction, name: BuildName) -> tuple[Build, int]:
    build = store.find_build(tx.connection, name)
    if build is None:
        raise not_found(name)
    return build, last_sequence(tx.connection, build.topic)


def _stream(name: BuildName) -> str:
    return f"build-events\n{name}"


def _entry(name: BuildName, event: Event) -> Entry:
    return Entry(event.payload, pagination.encode_cursor(_stream(name), (event.sequence,)))
