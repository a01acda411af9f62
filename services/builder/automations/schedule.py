"""When triggers of time are due: pure functions of moments in UTC.

The calendar is cronsim's, which does as Debian's cron does: a time that is left
out when clocks go forward is due at the end of the gap, one that comes twice is
due the first time, and expressions whose minute or hour begins with `*` go by
elapsed time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from services.builder.automations.domain import Cause, Trigger

FIELDS = 5


def zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone, such as Europe/Berlin") from None


def check(expression: str, time_zone: str) -> None:
    """Refuse an expression that is none, or that is never due.

    Raises:
        ValueError: it is, in words that follow the field's name.
    """
    if len(expression.split()) != FIELDS:
        problem = "must have five fields: minute, hour, day of month, month, day of week"
        raise ValueError(problem)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    trigger = Trigger(Cause.CRON, expression=expression, time_zone=time_zone)
    try:
        found = following(trigger, start)
    except (CronSimError, OverflowError) as error:
        raise ValueError(f"is no cron expression: {str(error).lower()}") from None
    if found is None:
        raise ValueError("is never due")


def following(trigger: Trigger, after: datetime) -> datetime | None:
    """Return the first moment after another at which a trigger is due; None: never again."""
    if trigger.kind is Cause.INTERVAL:
        return after + timedelta(seconds=trigger.interval)
    # Of a time that comes twice, the calendar may name the first while it is the second by now.
    return next((due for due in _forward(trigger, after) if due > after), None)


def latest_due(trigger: Trigger, first: datetime, now: datetime, limit: int) -> list[datetime]:
    """Return the latest moments from `first` to `now` at which a trigger is due, in order.

    `first` is one of them; at most `limit` are returned.
    """
    if trigger.kind is Cause.INTERVAL:
        interval = timedelta(seconds=trigger.interval)
        last = (now - first) // interval
        return [first + interval * n for n in range(max(0, last - limit + 1), last + 1)]
    # Counted forward alone, from ever earlier: cronsim counts back otherwise where clocks
    # change by half an hour.
    length = timedelta(hours=1)
    while True:
        start = max(first, now - length)
        counted = _forward(trigger, start - timedelta(seconds=1))
        found = list(itertools.takewhile(lambda due: due <= now, counted))
        found = [due for due in found if due >= start]
        if len(found) >= limit or start == first:
            return found[-limit:]
        length *= 4


def _forward(trigger: Trigger, after: datetime) -> Iterator[datetime]:
    place = zone(trigger.time_zone)
    return (due.astimezone(UTC) for due in CronSim(trigger.expression, after.astimezone(place)))
