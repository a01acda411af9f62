"""Ingest: batches of all callers that wait are committed together, then acknowledged.

While one transaction commits, the next one's batches gather. Each batch is checked
before anything is written, so a bad one fails alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.common.errors import ServiceError, not_found
from services.common.names import RunName
from services.common.sql.database import Database, Transaction
from services.metadata.runs import ingest_store, store
from services.metadata.runs.domain import Batch, RunState, is_presumed, run_deleted
from services.metadata.runs.ingest_store import Ledger, Written
from services.metadata.runs.intake import Intake
from services.metadata.runs.writes_store import Writes

BATCHES = 256
POINTS = 200_000
LEDGER_ENTRIES = 200_000
"""So many series, parameters and writers of runs are remembered."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    batch: Batch
    answer: asyncio.Future[int]


@dataclass(frozen=True, slots=True)
class _Group:
    """What a transaction made of some batches: an answer each, and what it wrote of each run."""

    answers: list[int | ServiceError]
    written: list[tuple[RunName, Intake, Written]]


class Ingestor:
    """Keeps batches; to be used from one event loop."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._draining: asyncio.Task[None] | None = None
        self._ledgers: OrderedDict[RunName, Ledger] = OrderedDict()

    def submit(self, batch: Batch) -> asyncio.Future[int]:
        """Have a batch kept; the answer is up to where its writer's batches are then kept.

        Batches of one writer are kept in the order in which they were submitted. The answer
        raises ServiceError: RESOURCE_NOT_FOUND, SEQUENCE_GAP, PARAM_CHANGED, LIMIT_EXCEEDED.
        """
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(batch, answer))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return answer

    async def _drain(self) -> None:
        try:
            while group := self._next_group():
                await self._keep(group)
        finally:
            self._draining = None
            for left in self._waiting:  # only when cancelled
                left.answer.cancel()
            self._waiting.clear()

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        points = 0
        while self._waiting and len(group) < BATCHES and points < POINTS:
            one = self._waiting.popleft()
            if one.answer.cancelled():
                continue
            points += sum(len(column.steps) for column in one.batch.columns)
            group.append(one)
        return group

    async def _keep(self, group: Sequence[_Waiting]) -> None:
        try:
            answers = await self._commit([one.batch for one in group])
        except Exception as error:  # handed to whoever sent the batch
            if len(group) == 1:
                _answer(group[0], error)
                return
            for one in group:  # something in there is bad in a way no check foresaw
                await self._keep([one])
            return
        for one, answer in zip(group, answers, strict=True):
            _answer(one, answer)

    async def _commit(self, batches: Sequence[Batch]) -> list[int | ServiceError]:
        now = self._clock()
        names = {batch.run for batch in batches}
        # Out of the cache until it is known that what they say is true again.
        ledgers = {name: self._ledgers.pop(name) for name in names if name in self._ledgers}
        group = await self._database.write(lambda tx: _ingest(tx, batches, ledgers, now))
        for name, intake, written in group.written:
            intake.commit(written)
            self._ledgers[name] = intake.ledger
        self._forget()
        return group.answers

    def _forget(self) -> None:
        sizes = [_size(ledger) for ledger in self._ledgers.values()]
        total = sum(sizes)
        for size in sizes:
            if total <= LEDGER_ENTRIES:
                return
            self._ledgers.popitem(last=False)
            total -= size


def _size(ledger: Ledger) -> int:
    return 10 + len(ledger.series) + len(ledger.params or ()) + len(ledger.writers)


def _answer(one: _Waiting, answer: int | Exception) -> None:
    if one.answer.done():
        return
    if isinstance(answer, Exception):
        one.answer.set_exception(answer)
        one.answer.exception()  # retrieved: a stream that broke does not ask any more
    else:
        one.answer.set_result(answer)


def _ingest(
    tx: Transaction, batches: Sequence[Batch], ledgers: dict[RunName, Ledger], now: datetime
) -> _Group:
    deleted: set[RunName] = set()
    intakes = _open(tx, {batch.run for batch in batches}, ledgers, deleted)
    answers: list[int | ServiceError] = []
    for batch in batches:
        intake = intakes.get(batch.run)
        try:
            answers.append(intake.take(batch) if intake else _refuse(batch.run, deleted))
        except ServiceError as error:
            answers.append(error)
    writes = Writes()
    written = [(name, intake, intake.write(tx, now, writes)) for name, intake in intakes.items()]
    writes.flush(tx.connection)
    for _, intake, one in written:
        ingest_store.compact_crowded(tx.connection, intake.ledger, one)
    return _Group(answers, written)


def _refuse(name: RunName, deleted: set[RunName]) -> int:
    raise run_deleted(name) if name in deleted else not_found(name)


def _open(
    tx: Transaction, names: set[RunName], ledgers: dict[RunName, Ledger], deleted: set[RunName]
) -> dict[RunName, Intake]:
    """Lock the runs, in one order, and see what each holds; add to `deleted` those that are."""
    connection = tx.connection
    pks = {name: ledger.run_pk for name, ledger in ledgers.items()}
    for name in names - pks.keys():
        pk = store.find_run_pk(connection, name)
        if pk is not None:
            pks[name] = pk
    rows = ingest_store.lock_runs(connection, pks.values())
    intakes = {}
    for name, pk in sorted(pks.items(), key=lambda item: item[1]):
        row = rows.get(pk)
        ledger = ledgers.get(name)
        if row is None or (ledger is not None and row.ingest_mark != ledger.mark):
            # Purged, or written by another process; by its name it may be another row now.
            found = store.find_run_pk(connection, name)
            row = None if found is None else ingest_store.lock_runs(connection, [found])[found]
            ledger = None
        if row is None:
            continue
        if row.delete_time is not None:
            deleted.add(name)
            continue
        ledger = ledger or ingest_store.load(connection, row.pk, row.ingest_mark)
        revived = is_presumed(RunState(row.state), row.failure_reason)
        intakes[name] = Intake(tx, name, ledger, is_revived=revived)
    return intakes
