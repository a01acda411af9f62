"""Searching runs.

A run has dozens of small parts, so that putting a page of them together costs far
more than finding it. What a run looked like is therefore remembered, encoded, under a
mark that changes with the run: it is never stale, however many replicas there are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.metadata.listing import Listing, Page
from services.metadata.runs import search_store
from services.metadata.runs.domain import Run
from services.metadata.runs.search_store import Mark
from services.metadata.watching.cursors import Stream, watchable

REMEMBERED = 32 * 1024 * 1024
"""Bytes of encoded runs that are remembered."""


class RunSearch:
    """Finds runs, within some seconds; `encode` makes of them what is sent."""

    def __init__(
        self, *, database: Database, seconds: float, encode: Callable[[Run], bytes]
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._encode = encode
        self._memory = _Memory(REMEMBERED)

    async def list_runs(self, parent: ModelName, listing: Listing) -> Page[bytes]:
        """Return a page of a model's runs, encoded; model `-`: of all models.

        Raises:
            ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN, GOAL_MISSING,
                LIMIT_EXCEEDED.
        """

        def read(tx: Transaction) -> Page[bytes]:
            marks, token = search_store.find_marks(
                tx.connection, parent, listing, seconds=self._seconds
            )
            known = self._memory.recall(marks)
            missing = [pk for pk in marks if pk not in known]
            for pk, run in search_store.load_runs(tx.connection, missing).items():
                known[pk] = self._encode(run)
                self._memory.keep(pk, marks[pk], known[pk])
            return Page(tuple(known[pk] for pk in marks if pk in known), token)

        return await self._database.read(
            lambda tx: watchable(tx, Stream.RUNS, parent.project, listing, lambda: read(tx))
        )


class _Memory:
    """The encoded runs that were asked for last, up to so many bytes; used by several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._runs: OrderedDict[int, tuple[Mark, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, marks: Mapping[int, Mark]) -> dict[int, bytes]:
        """Return those that are as they were."""
        found = {}
        with self._lock:
            for pk, mark in marks.items():
                kept = self._runs.get(pk)
                if kept is not None and kept[0] == mark:
                    self._runs.move_to_end(pk)
                    found[pk] = kept[1]
        return found

    def keep(self, pk: int, mark: Mark, encoded: bytes) -> None:
        """Remember one, and forget those not asked for the longest."""
        with self._lock:
            replaced = self._runs.pop(pk, None)
            self._size += len(encoded) - (len(replaced[1]) if replaced else 0)
            self._runs[pk] = (mark, encoded)
            while self._size > self._limit:
                _, (_, forgotten) = self._runs.popitem(last=False)
                self._size -= len(forgotten)
