"""Hearing what is no matter of time: metrics and dataset versions.

What metadata knows is asked for, from where the trigger stopped; how far it looked
is stored with the executions that came of it, and only if nobody else did so
meanwhile. Reported values are looked at in the transaction that keeps them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.builder.automations import crossing, drifting, store
from services.builder.automations.delegating import AutomationDelegations
from services.builder.automations.domain import (
    MAX_CAUGHT_UP,
    MAX_REPORTS,
    Automation,
    CatchUp,
    Cause,
    Occurrence,
    Report,
    Training,
    Watching,
)
from services.builder.automations.downstream import Neighbours, Observation
from services.builder.automations.firing import fire
from services.common.errors import Reason, ServiceError
from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once

logger = logging.getLogger(__name__)

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a report: the names of executions. It is kept as the answer for a repeat."""

    executions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far a look went, and what it found."""

    watching: Watching
    occurrences: tuple[Occurrence, ...] = ()


class Observing:
    """Looks at metadata for the triggers that need it; replicas share the work."""

    def __init__(
        self,
        *,
        database: Database,
        neighbours: Neighbours,
        delegations: AutomationDelegations,
        clock: Callable[[], datetime],
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._neighbours = neighbours
        self._delegations = delegations
        self._clock = clock
        self._seconds = poll_seconds

    async def look(self) -> None:
        """Look for whichever triggers it is time."""
        taken = await self._database.write(
            lambda tx: store.take_to_look(
                tx.connection, self._clock(), seconds=self._seconds, limit=_BATCH
            )
        )
        await asyncio.gather(*(self._look(automation) for automation in taken))

    async def report(self, report: Report, *, key: Key | None) -> Heard:
        """Keep a value and fire the triggers that hear it, once per key."""
        now = self._clock()
        return await self._database.write(
            lambda tx: once(tx, key, Heard, lambda: _report(tx, report, now))
        )

    async def reports(
        self, model: str, metric: str, *, before: int | None, limit: int
    ) -> list[Report]:
        """Return a metric's reported values, newest first, from before one on."""
        return await self._database.read(
            lambda tx: store.list_reports(tx.connection, model, metric, before=before, limit=limit)
        )

    async def _look(self, automation: Automation) -> None:
        try:
            credential = await self._delegations.fresh(automation)
            seen = await self._see(automation, credential)
        except ServiceError as error:
            await self._delegations.still_may(automation, error)
            extra = {"automation": str(automation.name), "reason": error.reason.value}
            logger.warning("trigger not looked at", extra=extra)
            return
        if seen.watching != automation.watching:
            now = self._clock()
            await self._database.write(lambda tx: _hear(tx, automation, seen, now))

    async def _see(self, automation: Automation, credential: str) -> _Seen:
        trigger, watching = automation.draft.trigger, automation.watching
        if trigger.hears_datasets:
            numbers = await self._neighbours.newest_versions(
                trigger.dataset, after=watching.dataset_version, credential=credential
            )
            if trigger.kind is Cause.DRIFT and numbers:
                return await self._hold_against(automation, numbers, credential)
            return _new_versions(automation, numbers)
        model = trigger.model or automation.draft.model
        try:
            observations = await self._neighbours.observe(
                trigger, model, watching.cursor, credential=credential
            )
        except ServiceError as error:
            if error.reason is not Reason.CURSOR_EXPIRED:
                raise
            # No builder looked for so long that metadata forgot: all there is now is past.
            cursor = await self._neighbours.cursor(trigger, model, credential=credential)
            return _Seen(replace(watching, cursor=cursor))
        return _observed(automation, observations)

    async def _hold_against(
        self, automation: Automation, numbers: Sequence[int], credential: str
    ) -> _Seen:
        """Say what came of a dataset's new versions beside what the model was trained on."""
        draft, watching, occurrences = automation.draft, automation.watching, []
        training = await self._neighbours.training(
            draft.trigger, draft.model, credential=credential
        )
        for name in _counted(automation, numbers):
            finding = drifting.Finding(False, training.problem, is_known=False)
            if training.data:
                finding = await self._compare(automation, training.data, name, credential)
            other_data = training.data != watching.training_data
            if not finding.is_known or (finding.drifted and (watching.armed or other_data)):
                occurrences.append(_of_drift(automation, name, training, finding))
            if finding.is_known:
                armed = not finding.drifted
                watching = replace(watching, armed=armed, training_data=training.data)
        return _Seen(replace(watching, dataset_version=numbers[-1]), tuple(occurrences))

    async def _compare(
        self, automation: Automation, base: str, other: str, credential: str
    ) -> drifting.Finding:
        try:
            columns = await self._neighbours.drift(
                automation.name.project, base, other, credential=credential
            )
        except ServiceError as error:
            if error.reason is not Reason.RESOURCE_NOT_FOUND:
                raise
            return drifting.Finding(False, error.message, is_known=False)
        return drifting.judge(automation.draft.trigger, columns)


def _counted(automation: Automation, numbers: Sequence[int]) -> list[str]:
    """Return those of a dataset's new versions that count: the newest, or each."""
    each = automation.draft.catch_up is CatchUp.ALL
    counted = numbers[-MAX_CAUGHT_UP:] if each else numbers[-1:]
    return [f"{automation.draft.trigger.dataset}/versions/{number}" for number in counted]


def _of_drift(
    automation: Automation, name: str, training: Training, finding: drifting.Finding
) -> Occurrence:
    return Occurrence(
        key=name,
        cause=Cause.DRIFT,
        explanation=(
            f"{_short(name)} drifted from {_short(training.data)}, which "
            f"{_short(training.version)} was trained on: {finding.words}"
            if finding.is_known
            else f"{_short(name)} is new"
        ),
        actor=automation.principal,
        dataset_version=name,
        dropped="" if finding.is_known else f"whether it drifted is not known: {finding.words}",
    )


def _new_versions(automation: Automation, numbers: Sequence[int]) -> _Seen:
    """Say what came of a dataset's new versions: the newest counts, or each."""
    if not numbers:
        return _Seen(automation.watching)
    occurrences = tuple(
        Occurrence(
            key=name,
            cause=Cause.DATASET,
            explanation=f"{_short(name)} is new",
            actor=automation.principal,
            dataset_version=name,
        )
        for name in _counted(automation, numbers)
    )
    return _Seen(replace(automation.watching, dataset_version=numbers[-1]), occurrences)


def _observed(automation: Automation, observations: Sequence[Observation]) -> _Seen:
    """Say what came of values, in their order."""
    trigger, armed, occurrences = automation.draft.trigger, automation.watching.armed, []
    for seen in observations:
        if seen.value is None:
            continue
        fires, armed = crossing.crosses(trigger, seen.value, armed=armed)
        if fires:
            why = crossing.explain(trigger, seen.value, _short(seen.of))
            occurrences.append(_of_metric(automation, seen.of, why))
    cursor = observations[-1].cursor if observations else automation.watching.cursor
    watching = replace(automation.watching, armed=armed, cursor=cursor)
    return _Seen(watching, tuple(occurrences))


def _of_metric(automation: Automation, key: str, explanation: str) -> Occurrence:
    return Occurrence(key, Cause.METRIC, explanation, automation.principal)


def _hear(tx: Transaction, looked: Automation, seen: _Seen, now: datetime) -> None:
    """Store how far a look went with what came of it, unless another was faster."""
    found = store.find_automation(tx.connection, looked.name, lock=True)
    same = found is not None and found.uid == looked.uid and found.watching == looked.watching
    if found is None or not same or found.edition != looked.edition:
        return
    for occurrence in seen.occurrences:
        found, _ = fire(tx, found, occurrence, now)
    store.save_automation(tx.connection, replace(found, watching=seen.watching))


def _report(tx: Transaction, report: Report, now: datetime) -> Heard:
    name = ModelName.parse(report.model)
    kept = store.add_report(tx.connection, report, keep=MAX_REPORTS)
    heard = store.listeners(tx.connection, name.project, report.model, report.metric)
    names: list[str] = []
    for automation in heard:
        trigger = automation.draft.trigger
        fires, armed = crossing.crosses(trigger, report.value, armed=automation.watching.armed)
        after = replace(automation, watching=replace(automation.watching, armed=armed))
        if fires:
            why = crossing.explain(trigger, report.value, f"a report by {report.reporter}")
            key = f"{report.model}/{report.metric}/{kept.sequence}"
            after, execution = fire(tx, after, _of_metric(automation, key, why), now)
            names.append(str(execution.name))
        store.save_automation(tx.connection, after)
    return Heard(tuple(names))


def _short(name: str) -> str:
    """Write a resource's name without its project."""
    return name.partition("/")[2].partition("/")[2]
