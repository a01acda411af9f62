"""Arithmetic of metric columns: packing, putting in order, choosing points for a chart."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeVar

from services.metadata.runs.domain import MetricColumn

Number = TypeVar("Number", int, float)


def pack(numbers: array[Number]) -> bytes:
    """Return numbers of eight bytes each, little-endian, every bit kept."""
    if sys.byteorder == "little":
        return numbers.tobytes()
    swapped = numbers[:]
    swapped.byteswap()
    return swapped.tobytes()


def unpack(typecode: str, data: bytes | memoryview) -> array[Number]:
    """Return the numbers that `pack` packed; the type codes are those of `array`."""
    numbers: array[Number] = array(typecode)
    numbers.frombytes(data)
    if sys.byteorder != "little":
        numbers.byteswap()
    return numbers


def empty(key: str) -> MetricColumn:
    """Return a column without points."""
    return MetricColumn(key, array("q"), array("Q"), array("d"))


def join(key: str, columns: Iterable[MetricColumn]) -> MetricColumn:
    """Return the points of several columns, one after the other."""
    whole = empty(key)
    for column in columns:
        whole.steps.extend(column.steps)
        whole.times_us.extend(column.times_us)
        whole.values.extend(column.values)
    return whole


def part(column: MetricColumn, start: int, end: int) -> MetricColumn:
    """Return the points from one place to before another."""
    return MetricColumn(
        column.key,
        column.steps[start:end],
        column.times_us[start:end],
        column.values[start:end],
    )


def pick(column: MetricColumn, places: Sequence[int]) -> MetricColumn:
    """Return the points at some places, in that order."""
    return MetricColumn(
        column.key,
        array("q", [column.steps[place] for place in places]),
        array("Q", [column.times_us[place] for place in places]),
        array("d", [column.values[place] for place in places]),
    )


def by_step(steps: array[int]) -> Sequence[int]:
    """Return the places of points by step, and of one step in order of logging."""
    places = range(len(steps))
    numbers = steps.tolist()
    if sorted(numbers) == numbers:
        return places
    return sorted(places, key=numbers.__getitem__)


def choose(values: array[float], limit: int) -> Sequence[int]:
    """Return at most `limit` (4 or more) places that draw the same line as all of them.

    The first and the last stay. What lies between is cut into stretches of equally many
    points, and each keeps its least and its greatest value; where there are NaNs each
    also keeps one of its own, so that a gap in the line stays a gap.
    """
    count = len(values)
    if count <= limit:
        return range(count)
    gaps = math.isnan(sum(values)) and any(math.isnan(value) for value in values)
    stretches = max((limit - 2) // (3 if gaps else 2), 1)
    inner, chosen = count - 2, {0, count - 1}
    for index in range(stretches):
        start = 1 + inner * index // stretches
        chosen |= _extremes(values, start, 1 + inner * (index + 1) // stretches, gaps=gaps)
    return sorted(chosen)[:limit]


def _extremes(values: array[float], start: int, end: int, *, gaps: bool) -> set[int]:
    found = values[start:end].tolist()
    if not gaps:
        return {start + found.index(min(found)), start + found.index(max(found))}
    numbers = [value for value in found if not math.isnan(value)]
    chosen = (
        {start + found.index(value) for value in (min(numbers), max(numbers))} if numbers else set()
    )
    nan = next((place for place, value in enumerate(found) if math.isnan(value)), None)
    return chosen if nan is None else chosen | {start + nan}
