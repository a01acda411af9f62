"""What one transaction takes in for one run: batches are checked first, then written at once."""

from __future__ import annotations

from datetime import datetime

from services.common.names import RunName
from services.common.sql.database import Transaction
from services.metadata.changes import ChangeKind
from services.metadata.limits import LABELS, limit_exceeded
from services.metadata.models.domain import MetricGoal
from services.metadata.runs import ingest_store, store
from services.metadata.runs.domain import (
    METRICS_PER_RUN,
    PARAMS_PER_RUN,
    Batch,
    MetricColumn,
    param_changed,
    sequence_gap,
)
from services.metadata.runs.ingest_store import Ledger, Written
from services.metadata.runs.news import publish_run
from services.metadata.runs.writes_store import Writes
from services.metadata.values import ParamValue, pack


class Intake:
    """The batches of one locked run that are taken in together."""

    def __init__(self, tx: Transaction, name: RunName, ledger: Ledger, *, is_revived: bool) -> None:
        self.ledger = ledger
        self._name = name
        self._connection = tx.connection
        self._is_revived = is_revived
        self._writers: dict[str, tuple[int, int]] = {}
        self._kept: list[Batch] = []
        self._params: dict[str, ParamValue] = {}
        self._columns: dict[str, list[MetricColumn]] = {}
        self._tags: dict[str, str] = {}
        self._tag_keys: set[str] | None = None
        self._goals: dict[str, MetricGoal] = {}
        self._new_series = 0

    def take(self, batch: Batch) -> int:
        """Take a batch in, all of it or nothing; return up to where its writer's are kept then.

        Raises:
            ServiceError: SEQUENCE_GAP, PARAM_CHANGED, LIMIT_EXCEEDED.
        """
        staged = self._writers.get(batch.writer)
        kept = staged[0] if staged else self.ledger.writers.get(batch.writer, 0)
        if batch.start > kept:
            raise sequence_gap(kept)
        if batch.end <= kept:
            if batch.start == batch.end == kept:  # a heartbeat; it tells of drops, too
                self._writers[batch.writer] = (kept, batch.dropped)
            return kept
        if batch.start < kept:
            raise sequence_gap(kept)
        params, new = self._check_params(batch), self._check_series(batch)
        self._check_tags(batch)
        self._params |= params
        self._new_series += new
        for column in batch.columns:
            self._columns.setdefault(column.key, []).append(column)
        self._goals = {**batch.goals, **self._goals}
        self._kept.append(batch)
        self._writers[batch.writer] = (batch.end, batch.dropped)
        return batch.end

    def write(self, tx: Transaction, now: datetime, writes: Writes) -> Written:
        """Write what was taken in; what every ingest writes is added to `writes`."""
        connection, ledger = tx.connection, self.ledger
        mark, heard = ingest_store.beat(ledger, now, writes)
        written = Written(
            mark=mark,
            heard=heard,
            writers={writer: end for writer, (end, _) in self._writers.items()},
            blocks=ledger.blocks,
            block_points=ledger.block_points,
            next_block=ledger.next_block,
        )
        if self._columns:
            ingest_store.add_points(connection, ledger, written, self._columns, writes)
        ingest_store.advance(ledger.run_pk, self._writers, writes)
        if self._is_revived:
            store.set_running(connection, ledger.run_pk)
            self._tell(tx, ChangeKind.RUN_REVIVED)
        if self._write_ingredients(tx):
            self._tell(tx, ChangeKind.RUN_UPDATED)
        return written

    def commit(self, written: Written) -> None:
        """Bring the ledger up to what is committed now."""
        ledger = self.ledger
        ledger.mark, ledger.heard = written.mark, written.heard
        ledger.writers |= written.writers
        ledger.series |= written.series
        ledger.blocks, ledger.block_points = written.blocks, written.block_points
        ledger.next_block = written.next_block
        if ledger.params is not None:
            ledger.params |= {key: pack(value) for key, value in self._params.items()}

    def _check_params(self, batch: Batch) -> dict[str, ParamValue]:
        if not batch.params:
            return {}
        if self.ledger.params is None:
            self.ledger.params = ingest_store.params_of(self._connection, self.ledger.run_pk)
        known, new = self.ledger.params, {}
        for key, value in batch.params.items():
            before = pack(self._params[key]) if key in self._params else known.get(key)
            if before is None:
                new[key] = value
            elif before != pack(value):
                raise param_changed(key)
        if len(known) + len(self._params) + len(new) > PARAMS_PER_RUN:
            raise limit_exceeded("params_per_run", PARAMS_PER_RUN)
        return new

    def _check_series(self, batch: Batch) -> int:
        known, staged = self.ledger.series, self._columns
        new = {c.key for c in batch.columns if c.key not in known and c.key not in staged}
        if len(known) + self._new_series + len(new) > METRICS_PER_RUN:
            raise limit_exceeded("metrics_per_run", METRICS_PER_RUN)
        return len(new)

    def _check_tags(self, batch: Batch) -> None:
        if not batch.tags:
            return
        if self._tag_keys is None:
            self._tag_keys = ingest_store.tag_keys(self._connection, self.ledger.run_pk)
        keys = self._tag_keys | batch.tags.keys()
        if len(keys) > LABELS:
            raise limit_exceeded("tags_per_run", LABELS)
        self._tag_keys = keys
        self._tags |= batch.tags

    def _write_ingredients(self, tx: Transaction) -> bool:
        """Write all that is no metric; say whether there was any."""
        connection, run_pk = tx.connection, self.ledger.run_pk
        ingest_store.add_goals(connection, self.ledger.model_pk, self._goals)
        ingest_store.add_params(connection, self.ledger, self._params)
        ingest_store.set_tags(connection, self.ledger, self._tags)
        changed = False
        for batch in self._kept:
            if batch.code or batch.environment or batch.datasets or batch.image:
                ingest_store.add_datasets(connection, run_pk, batch.datasets)
                ingest_store.set_ingredients(
                    connection,
                    run_pk,
                    code=batch.code,
                    environment=batch.environment,
                    image=batch.image,
                )
                changed = True
        if not changed and (self._params or self._tags):
            ingest_store.set_ingredients(connection, run_pk, code=None, environment=None, image="")
            changed = True
        return changed

    def _tell(self, tx: Transaction, kind: ChangeKind) -> None:
        run = store.find_run(tx.connection, self._name)
        if run is not None:  # it is locked: it is there
            publish_run(tx, kind, run)
