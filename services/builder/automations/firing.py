"""From occurrences to executions: each once, in the transaction that moves its trigger on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from services.builder.automations import execution_store, schedule, store
from services.builder.automations.domain import (
    KEPT_EXECUTIONS,
    MAX_CAUGHT_UP,
    MAX_WAITING,
    Automation,
    CatchUp,
    Cause,
    Execution,
    ExecutionState,
    Occurrence,
    Overlap,
)
from services.common.sql.database import Database, Transaction

_BATCH = 20


class Firing:
    """Hears the clock for all automations; replicas share the work."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def fire_due(self) -> None:
        """Fire whatever is due by now."""
        while await self._database.write(lambda tx: _fire_due(tx, self._clock())) == _BATCH:
            pass


def fire(
    tx: Transaction, automation: Automation, occurrence: Occurrence, now: datetime
) -> tuple[Automation, Execution]:
    """Record the execution of an occurrence, or find the one it had.

    The automation must be locked; it is returned as it is to be saved by the caller.
    """
    name = automation.execution_name(occurrence.key)
    found = execution_store.find_execution(tx.connection, name)
    if found is not None:
        return automation, found
    left_out = occurrence.dropped or _overlap(tx, automation, occurrence)
    number = automation.executions + 1
    execution = Execution(
        name=name,
        uid=automation.uid,
        number=number,
        occurrence=occurrence,
        model=automation.draft.model,
        action=automation.draft.action,
        principal=automation.principal,
        create_time=now,
        state=ExecutionState.SKIPPED if left_out else ExecutionState.PENDING,
        explanation=left_out,
        end_time=now if left_out else None,
    )
    execution_store.add_execution(tx.connection, execution)
    execution_store.trim_executions(tx.connection, automation.name, number - KEPT_EXECUTIONS)
    return replace(automation, executions=number, last_execution=name.execution), execution


def _overlap(tx: Transaction, automation: Automation, occurrence: Occurrence) -> str:
    """Say why an automation cannot take another execution on now; empty: it can.

    Who wants each occurrence, or runs it by hand, does not want one left out.
    """
    active = execution_store.active_executions(tx.connection, automation.name)
    draft, by_hand = automation.draft, occurrence.cause is Cause.MANUAL
    waits = draft.overlap is Overlap.QUEUE or draft.catch_up is CatchUp.ALL or by_hand
    if active and not waits:
        return f"execution {active[0].name.execution} was still {active[0].state}"
    if len(active) >= MAX_WAITING:
        return f"{len(active)} executions were waiting already"
    return ""


def _fire_due(tx: Transaction, now: datetime) -> int:
    """Fire what is due of some automations; return of how many."""
    due = store.take_due(tx.connection, now, limit=_BATCH)
    for automation in due:
        fired = automation
        for occurrence in _occurrences(automation, now):
            fired, _ = fire(tx, fired, occurrence, now)
        trigger = automation.draft.trigger
        last = schedule.latest_due(trigger, _first(automation), now, 1)[-1]
        fired = replace(fired, next_time=schedule.following(trigger, last))
        store.save_automation(tx.connection, fired)
    return len(due)


def _first(automation: Automation) -> datetime:
    if automation.next_time is None:
        raise ValueError("the automation has no time")
    return automation.next_time


def _occurrences(automation: Automation, now: datetime) -> list[Occurrence]:
    """Return what is to be executed, or recorded as left out, of all that came due."""
    draft = automation.draft
    found = schedule.latest_due(draft.trigger, _first(automation), now, MAX_CAUGHT_UP + 1)
    times = found[-MAX_CAUGHT_UP:] if draft.catch_up is CatchUp.ALL else found[-1:]
    missed = len(found) - len(times)
    least = "at least " if len(found) > MAX_CAUGHT_UP else ""
    note = f"; {least}{missed} earlier missed" if missed else ""
    return [_occurrence(automation, time, note, now) for time in times]


def _occurrence(automation: Automation, time: datetime, note: str, now: datetime) -> Occurrence:
    draft = automation.draft
    late, window = now - time, timedelta(seconds=draft.window)
    dropped = ""
    if draft.catch_up is CatchUp.SKIP and late > window:
        dropped = (
            f"it came due while no builder ran, {_length(late)} ago; {_length(window)} is allowed"
        )
    trigger = draft.trigger
    rule = trigger.expression or f"every {_length(timedelta(seconds=trigger.interval))}"
    zone = f" {trigger.time_zone}" if trigger.expression else ""
    return Occurrence(
        key=f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond:06d}Z",
        cause=trigger.kind,
        explanation=f"due {time:%Y-%m-%d %H:%M:%S} UTC by {rule}{zone}{note}",
        actor=automation.principal,
        time=time,
        dropped=dropped,
    )


def _length(length: timedelta) -> str:
    """Write a length of time briefly, such as `1 d 2 h`, `10 min` or `30 s`."""
    seconds = round(length.total_seconds())
    parts = [
        (seconds // 86_400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
