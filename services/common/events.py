"""Events on their way: Redis Streams carry ledgers' events between processes.

Redis is a doorbell and a fast lane, never the truth: an event that was lost on
the way is read from the ledger, so Redis may be absent, killed or wiped at the
cost of delay only. One reader a process fans out to all followers in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import msgspec
import redis.asyncio as redis

from services.common.listing.pagination import cursor_expired
from services.common.sql.database import Database
from services.common.sql.outbox import Event, microseconds, moment, read_events

logger = logging.getLogger(__name__)

STREAM_LENGTH = 2_000
STREAM_SECONDS = 3_600
QUEUE_LENGTH = 1_000
QUEUE_BYTES = 4 * 1024 * 1024
POLL_SECONDS = 1.0
RETRY_SECONDS = 0.5
BLOCK_MILLISECONDS = 3_000
SOCKET_SECONDS = 6.0
HEARTBEAT_SECONDS = 10.0
PAGE = 200
ENTRY_BYTES = 256 * 1024
CANCEL_SECONDS = 0.2
PENDING = 10_000
PENDING_BYTES = 64 * 1024 * 1024
GATHER_SECONDS = 0.01
EXPIRE_SECONDS = 60.0


class _Carried(msgspec.Struct, array_like=True):
    """An event as an entry of its topic's stream carries it."""

    sequence: int
    time_us: int
    kind: str
    payload: bytes


class _Bounded(asyncio.Queue[Event]):
    """A queue of events that is full by their number, or by their bytes."""

    def __init__(self, length: int, size: int) -> None:
        self._room = size
        super().__init__(length)

    def full(self) -> bool:
        """Say whether nothing more is taken; the last event taken may go over."""
        return self._room <= 0 or super().full()

    def _put(self, item: Event) -> None:
        self._room -= len(item.payload)
        super()._put(item)

    def _get(self) -> Event:
        event: Event = super()._get()
        self._room += len(event.payload)
        return event


class EventBus:
    """A process's connection to Redis Streams, for one service's topics."""

    def __init__(self, url: str | None, *, service: str) -> None:
        # A stopped server is noticed: no answer takes longer than a blocked read may.
        self._client = redis.Redis.from_url(url, socket_timeout=SOCKET_SECONDS) if url else None
        self._prefix = f"modelyard:{service}:"
        # An entry to a stream of our own ends a blocked read, to add a topic to it.
        self._doorbell = f"{self._prefix}doorbell:{secrets.token_hex(8)}"
        self._followers: dict[str, set[asyncio.Queue[Event]]] = defaultdict(set)
        self._delivered: dict[str, int] = {}
        self._positions: dict[str, str] = {}
        self._outgoing = _Bounded(PENDING, PENDING_BYTES)
        # Until when a stream's time to live need not be said again.
        self._expiring: dict[str, float] = {}

    def publish(self, events: list[Event]) -> None:
        """Send committed events on their way; what cannot be sent is left to the ledger."""
        for event in events:
            self._deliver(event)
            if self._client is not None and not self._outgoing.full():
                self._outgoing.put_nowait(event)

    @contextlib.contextmanager
    def follow(self, topic: str) -> Iterator[asyncio.Queue[Event]]:
        """Receive a topic's events from now on; a full queue drops, the ledger has them."""
        queue = _Bounded(QUEUE_LENGTH, QUEUE_BYTES)
        self._followers[topic].add(queue)
        if len(self._followers[topic]) == 1:
            self._positions[self._prefix + topic] = "$"
            self._ring()
        try:
            yield queue
        finally:
            self._followers[topic].discard(queue)
            if not self._followers[topic]:
                del self._followers[topic]
                self._delivered.pop(topic, None)
                self._positions.pop(self._prefix + topic, None)

    async def run(self) -> None:
        """Send and receive until cancelled."""
        if self._client is None:
            return
        running = {
            asyncio.create_task(self._send_forever()),
            asyncio.create_task(self._receive_forever()),
        }
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await _end(running)
            await self._client.aclose()

    async def _send_forever(self) -> None:
        assert self._client is not None  # noqa: S101 - run() checked
        while True:
            batch = [await self._outgoing.get()]
            while not self._outgoing.empty() and len(batch) < PAGE:
                batch.append(self._outgoing.get_nowait())
            try:
                async with self._client.pipeline(transaction=False) as pipeline:
                    for topic, entry in _entries(batch):
                        key = self._prefix + topic
                        pipeline.xadd(key, {"e": entry}, maxlen=STREAM_LENGTH, approximate=True)
                    due = self._due({self._prefix + event.topic for event in batch})
                    for key in due:
                        pipeline.expire(key, STREAM_SECONDS)
                    await pipeline.execute()
                self._expiring.update(due)
                # A send costs as much as a call: what comes in the next moment goes together.
                await asyncio.sleep(GATHER_SECONDS)
            except (redis.RedisError, OSError) as error:
                logger.warning("events not sent, followers poll", extra={"error": str(error)})
                self._expiring.clear()
                await asyncio.sleep(RETRY_SECONDS)

    def _due(self, keys: set[str]) -> dict[str, float]:
        """Return the streams whose time to live is to be said, and until when that will do."""
        now = time.monotonic()
        self._expiring = {key: until for key, until in self._expiring.items() if until > now}
        return {key: now + EXPIRE_SECONDS for key in keys if key not in self._expiring}

    async def _receive_forever(self) -> None:
        self._positions[self._doorbell] = "$"
        while True:
            try:
                await self._receive()
            except (redis.RedisError, OSError) as error:
                logger.warning("events not received, polling", extra={"error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
                for key in self._positions:
                    self._positions[key] = "$"

    async def _receive(self) -> None:
        assert self._client is not None  # noqa: S101 - run() checked
        positions: dict[Any, Any] = dict(self._positions)
        answer = await self._client.xread(positions, block=BLOCK_MILLISECONDS, count=PAGE)
        for key, entries in _pairs(answer):
            for entry_id, fields in entries:
                if key in self._positions:
                    self._positions[key] = entry_id
                if key != self._doorbell:
                    for event in _events(key.removeprefix(self._prefix), fields[b"e"]):
                        self._deliver(event)

    def _deliver(self, event: Event) -> None:
        """Hand an event to its followers: once, though our own come back from Redis, too.

        One that comes after a later one is left out: whoever got that has read the ledger.
        """
        queues = self._followers.get(event.topic)
        if not queues or event.sequence <= self._delivered.get(event.topic, 0):
            return
        self._delivered[event.topic] = event.sequence
        for queue in queues:
            if not queue.full():
                queue.put_nowait(event)

    def _ring(self) -> None:
        if self._client is not None:
            task = asyncio.ensure_future(self._ring_doorbell())
            _RINGING.add(task)
            task.add_done_callback(_RINGING.discard)

    async def _ring_doorbell(self) -> None:
        assert self._client is not None  # noqa: S101 - _ring() checked
        with contextlib.suppress(redis.RedisError, OSError):  # the next block timeout does it too
            await self._client.xadd(self._doorbell, {"ring": b"1"}, maxlen=1)
            await self._client.expire(self._doorbell, STREAM_SECONDS)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: `asyncio.wait_for` in the Redis client swallows, before Python
    3.12, a cancellation that arrives just as its own wait ends.
    """
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


# A task nobody refers to may be collected before it ran.
_RINGING: set[asyncio.Task[None]] = set()


async def tail(
    database: Database, bus: EventBus, topic: str, after: int
) -> AsyncGenerator[list[Event], None]:
    """Yield a topic's events after a sequence, in order, without gap or repeat, for ever.

    An empty list is yielded when the topic has been quiet for a while. Following
    begins before the ledger is read, so nothing falls between the two.

    Raises:
        ServiceError: CURSOR_EXPIRED when the next event was trimmed from the ledger.
    """
    clock = asyncio.get_running_loop().time
    with bus.follow(topic) as queue:
        quiet_since = clock()
        events = await _from_ledger(database, topic, after)
        while True:
            if events or clock() - quiet_since >= HEARTBEAT_SECONDS:
                after = events[-1].sequence if events else after
                quiet_since = clock()
                yield events
            # Nothing live, or a gap: the ledger knows.
            events = await _next_live(queue, after) or await _from_ledger(database, topic, after)


async def _from_ledger(database: Database, topic: str, after: int) -> list[Event]:
    events = await database.read(lambda tx: read_events(tx.connection, topic, after, PAGE))
    if events and events[0].sequence != after + 1:
        raise cursor_expired()
    return events


async def _next_live(queue: asyncio.Queue[Event], after: int) -> list[Event]:
    """Take what arrives and follows on without a gap; nothing when the ledger must be asked."""
    arrived: list[Event] = []
    try:
        async with asyncio.timeout(POLL_SECONDS):
            while not arrived:
                arrived = [event for event in await _taken(queue) if event.sequence > after]
    except TimeoutError:
        return []
    following: list[Event] = []
    for event in sorted(arrived, key=lambda event: event.sequence):
        if event.sequence == after + 1:
            following.append(event)
            after = event.sequence
        else:
            break
    return following


async def _taken(queue: asyncio.Queue[Event]) -> list[Event]:
    taken = [await queue.get()]
    while not queue.empty():
        taken.append(queue.get_nowait())
    return taken


def _entries(events: Sequence[Event]) -> Iterator[tuple[str, bytes]]:
    """Yield entries for events' topics: several small events to one, which costs as one does."""
    waiting: dict[str, tuple[list[_Carried], int]] = {}
    for event in events:
        carried, size = waiting.pop(event.topic, ([], 0))
        if size + len(event.payload) > ENTRY_BYTES and carried:
            yield event.topic, msgspec.msgpack.encode(carried)
            carried, size = [], 0
        carried.append(
            _Carried(event.sequence, microseconds(event.time), event.kind, event.payload)
        )
        waiting[event.topic] = (carried, size + len(event.payload))
    for topic, (carried, _) in waiting.items():
        yield topic, msgspec.msgpack.encode(carried)


def _events(topic: str, entry: bytes) -> Iterator[Event]:
    for one in msgspec.msgpack.decode(entry, type=list[_Carried]):
        yield Event(topic, one.sequence, moment(one.time_us), one.kind, one.payload)


def _pairs(answer: Any) -> Iterator[tuple[str, list[tuple[str, dict[bytes, bytes]]]]]:
    """Read XREAD's answer, a list of pairs in RESP2 and a map in RESP3."""
    for key, entries in answer.items() if isinstance(answer, dict) else answer or ():
        flat = entries[0] if entries and isinstance(entries[0], list) else entries
        yield key.decode(), [(entry_id.decode(), fields) for entry_id, fields in flat]
