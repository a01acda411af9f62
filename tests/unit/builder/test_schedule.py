"""When triggers are due: any expression, any zone, over changes of clocks, in any steps."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.builder.automations import schedule
from services.builder.automations.crossing import crosses
from services.builder.automations.domain import Bound, Cause, MetricSource, Trigger

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
BERLIN = ZoneInfo("Europe/Berlin")


def cron(expression: str, zone: str = "Europe/Berlin") -> Trigger:
    schedule.check(expression, zone)
    return Trigger(Cause.CRON, expression=expression, time_zone=zone)


def due(trigger: Trigger, start: datetime, end: datetime) -> list[datetime]:
    """Return when a trigger is due after a moment, as one tick after another finds it."""
    found: list[datetime] = []
    moment = schedule.following(trigger, start)
    while moment is not None and moment <= end:
        found.append(moment)
        moment = schedule.following(trigger, moment)
    return found


minutes = st.one_of(st.just("*"), st.just("*/15"), st.integers(0, 59).map(str))
hours = st.one_of(st.just("*"), st.just("*/2"), st.just("1-3"), st.integers(0, 23).map(str))
# Days around the changes of clocks of 2027, in either half of the world.
starts = st.builds(
    lambda day, minute: day + timedelta(minutes=minute),
    st.sampled_from([(3, 13), (3, 27), (4, 3), (10, 2), (10, 30), (11, 6)]).map(
        lambda day: datetime(2027, *day, tzinfo=UTC)
    ),
    st.integers(0, 2160),
)


@settings(max_examples=60, deadline=None)
@given(minutes, hours, st.sampled_from(ZONES), starts, st.lists(st.integers(1, 900), max_size=6))
def test_however_the_clock_is_looked_at_the_same_moments_are_due(
    minute: str, hour: str, zone: str, start: datetime, steps: list[int]
) -> None:
    trigger = cron(f"{minute} {hour} * * *", zone)
    now, end = start, start + timedelta(minutes=sum(steps))
    seen: list[datetime] = []
    following = schedule.following(trigger, start)
    for step in steps:
        now += timedelta(minutes=step)
        if following is not None and following <= now:
            seen += schedule.latest_due(trigger, following, now, 10_000)
            following = schedule.following(trigger, seen[-1])
    assert seen == due(trigger, start, end)
    assert seen == sorted(set(seen))


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 10**6), st.integers(0, 10**7), st.integers(1, 200))
def test_the_latest_of_an_interval(seconds: int, passed: int, limit: int) -> None:
    trigger = Trigger(Cause.INTERVAL, interval=seconds)
    first = datetime(2027, 1, 1, tzinfo=UTC)
    now = first + timedelta(seconds=passed)
    found = schedule.latest_due(trigger, first, now, limit)
    assert len(found) == min(limit, passed // seconds + 1)
    assert now - timedelta(seconds=seconds) < found[-1] <= now
    assert {later - earlier for earlier, later in itertools.pairwise(found)} <= {
        timedelta(seconds=seconds)
    }


@pytest.mark.parametrize(
    ("expression", "day", "times"),
    [
        # Forward on 28 March 2027: 02:00 becomes 03:00.
        ("30 2 * * *", (3, 28), ["03:00+0200"]),
        ("0 3 * * *", (3, 28), ["03:00+0200"]),
        ("*/30 2 * * *", (3, 28), []),
        ("*/30 1-3 * * *", (3, 28), ["01:00+0100", "01:30+0100", "03:00+0200", "03:30+0200"]),
        # Back on 31 October 2027: 03:00 becomes 02:00.
        ("30 2 * * *", (10, 31), ["02:30+0200"]),
        ("30 * * * *", (10, 31), None),
        ("*/30 2 * * *", (10, 31), ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
    ],
)
def test_changes_of_clocks(expression: str, day: tuple[int, int], times: list[str] | None) -> None:
    start = datetime(2027, *day, tzinfo=BERLIN).astimezone(UTC) - timedelta(seconds=1)
    month, number = day
    end = (datetime(2027, month, number, 23, 59, tzinfo=BERLIN)).astimezone(UTC)
    found = [f"{m.astimezone(BERLIN):%H:%M%z}" for m in due(cron(expression), start, end)]
    if times is None:
        assert len(found) == 25  # that day has 25 hours
    else:
        assert found[: len(times) or None] == times


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789*/,-LW# MON", max_size=20))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    try:
        schedule.check(text, "UTC")
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either way is right


@pytest.mark.parametrize("zone", ["", "Nowhere/Land", "../secret", "/etc/passwd", "Europe", "a\0b"])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        schedule.zone(zone)


@given(st.lists(st.floats(), max_size=50), st.sampled_from(Bound))
def test_a_crossing_fires_once_and_arms_again(values: list[float], bound: Bound) -> None:
    trigger = Trigger(Cause.METRIC, source=MetricSource.REPORT, bound=bound, threshold=0.5)
    armed, fired = True, 0
    beyond = [v > 0.5 if bound is Bound.ABOVE else v < 0.5 for v in values if v == v]  # noqa: PLR0124
    for value in values:
        fires, armed = crosses(trigger, value, armed=armed)
        fired += fires
    rises = sum(now and not before for before, now in zip([False, *beyond], beyond, strict=False))
    assert fired == rises
