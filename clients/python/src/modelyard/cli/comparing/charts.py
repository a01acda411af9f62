"""Metric curves as shapes of a chart: scales, ticks, lines with gaps; pure geometry."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 14.0, 12.0, 36.0
DENSE = 250
"""From so many points on, a curve is drawn thinner."""
COLOURS = 10
"""So many colours there are; further curves are dashed."""

_TINY = 1e-300

Points = tuple[Sequence[int], Sequence[float]]
"""Steps and values of a series."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One series: its path (with gaps) and its lone points, in the chart's units."""

    name: str
    colour: int
    dashes: str
    path: str
    dots: tuple[tuple[float, float], ...]
    dense: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric's curves."""

    key: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def colour_of(index: int) -> int:
    """Return the colour of a series, the same in all charts."""
    return index % COLOURS


def dashes_of(index: int) -> str:
    """Return how a series is dashed, once all colours are used; empty: not at all."""
    return ("", "6 3", "2 3", "8 3 2 3")[index // COLOURS % 4]


def make_chart(key: str, series: Mapping[int, Points], names: Sequence[str]) -> Chart | None:
    """Draw a metric; None when no series has two numbers to draw a line between."""
    finite = {index: _finite(points) for index, points in series.items()}
    if max((len(points) for points in finite.values()), default=0) < 2:
        return None
    steps = [step for points in finite.values() for step, _ in points]
    values = [value for points in finite.values() for _, value in points]
    x = _Scale(_whole_domain(min(steps), max(steps)), LEFT, WIDTH - RIGHT)
    y = _Scale(_domain(min(values), max(values)), HEIGHT - BOTTOM, TOP)
    return Chart(
        key=key,
        curves=tuple(_curve(names[index], index, points, x, y) for index, points in series.items()),
        x_ticks=tuple(_ticks(x, 8, whole=True)),
        y_ticks=tuple(_ticks(y, 7)),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to the chart's units."""

    domain: tuple[float, float]
    start: float
    end: float

    def __call__(self, value: float) -> float:
        low, high = self.domain
        # Halves, because the difference of two great numbers may be too great.
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        return round(self.start + share * (self.end - self.start), 1)


def _finite(points: Points) -> list[tuple[int, float]]:
    return [(s, v) for s, v in zip(*points, strict=True) if math.isfinite(v)]


def _whole_domain(low: int, high: int) -> tuple[float, float]:
    return (float(low), float(high)) if high > low else (low - 1.0, low + 1.0)


def _domain(low: float, high: float) -> tuple[float, float]:
    """Return what an axis of values covers: a little more than they do, and never nothing."""
    margin = (high / 2 - low / 2) * 0.1
    if margin < _TINY:
        margin = abs(low) * 0.1 if abs(low) > _TINY * 1e10 else 1.0
    return max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)


def _curve(name: str, index: int, points: Points, x: _Scale, y: _Scale) -> Curve:
    """Draw a line through the points; what is no number is a gap in it."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(*points, strict=True):
        if math.isfinite(value):
            pieces[-1].append((x(step), y(value)))
        elif pieces[-1]:
            pieces.append([])
    path = "".join(
        f"M{'L'.join(f'{a:g},{b:g}' for a, b in piece)}" for piece in pieces if len(piece) > 1
    )
    dots = tuple(piece[0] for piece in pieces if len(piece) == 1)
    return Curve(name, colour_of(index), dashes_of(index), path, dots, len(points[0]) > DENSE)


def _ticks(scale: _Scale, count: int, *, whole: bool = False) -> list[Tick]:
    """Return marks at round numbers, about `count` of them."""
    low, high = scale.domain
    step = _round_step((high / 2 - low / 2) / count * 2)
    if whole:
        step = max(step, 1.0)
    first = math.ceil(low / step)
    found = []
    for number in range(count * 3):
        value = (first + number) * step
        if value > high:
            break
        found.append(Tick(scale(value), _label(value, step)))
    return found


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    if power == 0.0:
        return rough
    return next((m * power for m in (1, 2, 5) if m * power >= rough), 10 * power)


def _label(value: float, step: float) -> str:
    if abs(value) < step / 2:
        return "0"
    if 1e4 <= abs(value) < 1e12 and value == int(value):
        return _thousands(value)
    if step >= 1e-4 and abs(value) < 1e4:
        return f"{value:.{max(-math.floor(math.log10(step)), 0)}f}"
    return f"{value:.4g}"


def _thousands(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.6g}{letter}"
    return f"{value:g}"
