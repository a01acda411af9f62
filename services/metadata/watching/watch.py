"""Following a project's ledger: what concerns a watcher, with what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from services.common.events import EventBus, tail
from services.common.listing.filter_matching import match_filter
from services.common.listing.pagination import cursor_expired
from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import last_sequence, read_events
from services.metadata.changes import topic
from services.metadata.watching.cursors import Stream, cursor_at, sequence_of
from services.metadata.watching.domain import FIELDS, Batch, Told, tell
from services.metadata.watching.store import Resource, find_resources

QUIET_SECONDS = 10.0
CHANGES_PER_MESSAGE = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a watcher wants: a stream, of which model (`-`: all), which changes, from where."""

    stream: Stream
    parent: ModelName
    filter: str
    cursor: str


class Watch:
    """Tells watchers of changes."""

    def __init__(self, *, database: Database, bus: EventBus) -> None:
        self._database = database
        self._bus = bus

    async def follow(self, wanted: Wanted) -> AsyncGenerator[Batch[Resource], None]:
        """Yield where the watch begins, then each change that is wanted, for ever.

        A batch without changes comes whenever nothing was said for a while.

        Raises:
            ServiceError: INVALID_FILTER, INVALID_CURSOR, CURSOR_EXPIRED.
        """
        stream, project = wanted.stream, wanted.parent.project
        matches = match_filter(wanted.filter, FIELDS[stream])
        after = await self._begin(wanted)
        yield Batch([], cursor_at(stream, project, after))
        clock = asyncio.get_running_loop().time
        said = clock()
        async with aclosing(tail(self._database, self._bus, topic(project), after)) as batches:
            async for events in batches:
                after = events[-1].sequence if events else after
                heard = [tell(event, stream, wanted.parent) for event in events]
                changes = [told for told in heard if told is not None and matches(told)]
                if not changes and clock() - said < QUIET_SECONDS:
                    continue
                for start in range(0, max(len(changes), 1), CHANGES_PER_MESSAGE):
                    some = changes[start : start + CHANGES_PER_MESSAGE]
                    is_last = start + len(some) >= len(changes)
                    until = after if is_last else some[-1].sequence
                    yield await self._batch(some, cursor_at(stream, project, until))
                said = clock()

    async def _begin(self, wanted: Wanted) -> int:
        project = wanted.parent.project
        after = sequence_of(wanted.cursor, wanted.stream, project)

        def begin(tx: Transaction) -> int:
            last = last_sequence(tx.connection, topic(project))
            if after is None or after == last:
                return last
            following = read_events(tx.connection, topic(project), after, limit=1)
            # Forgotten, or of a ledger that was put back to what it was before.
            if not following or following[0].sequence != after + 1:
                raise cursor_expired()
            return after

        return await self._database.read(begin)

    async def _batch(self, changes: list[Told], cursor: str) -> Batch[Resource]:
        if not changes:
            return Batch([], cursor)
        names = {told.change.name for told in changes}

        def read(tx: Transaction) -> Batch[Resource]:
            found = find_resources(tx.connection, names)
            return Batch([(told, found.get(told.change.name)) for told in changes], cursor)

        return await self._database.read(read)
