"""Runs the bars of a group, prints one JSON line each, and judges."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from benchmarks.targets import TARGETS


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a bar measured: the value judged, and what it was made of."""

    bar: str
    value: float
    ours: list[float]
    other: list[float]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much to measure."""

    repetitions: int
    quick: bool

    @property
    def runs(self) -> int:
        """Return how many runs the searched database holds."""
        return 10_000 if self.quick else 100_000

    @property
    def grown(self) -> int:
        """Return how many runs the grown database holds."""
        return 100_000 if self.quick else 1_000_000


Measure = Callable[[Scale], Iterator[Measurement]]


def main(group: str, measure: Measure, variants: Mapping[str, Measure] | None = None) -> None:
    """Measure a group's bars; exit with 0 only if every one was measured and holds.

    Args:
        group: whose targets hold.
        measure: measures them.
        variants: what else may be measured, by option; its targets are those of `group option`.
    """
    parser = argparse.ArgumentParser(description=f"The {group} bars.")
    parser.add_argument("--quick", action="store_true", help="three repetitions, small data")
    for variant in variants or {}:
        parser.add_argument(f"--{variant}", dest="variant", action="store_const", const=variant)
    chosen = parser.parse_args()
    quick = chosen.quick
    if variants and chosen.variant:
        group, measure = f"{group} {chosen.variant}", variants[chosen.variant]
    missing = set(TARGETS[group])
    held = True
    for measurement in measure(Scale(3 if quick else 5, quick)):
        missing.discard(measurement.bar)
        held &= _report(group, measurement)
    for bar in sorted(missing):
        print(json.dumps({"bar": bar, "holds": False, "error": "not measured"}))
    sys.exit(0 if held and not missing else 1)


def _report(group: str, measurement: Measurement) -> bool:
    target = TARGETS[group][measurement.bar]
    holds = target.holds(measurement.value)
    line = {
        "bar": measurement.bar,
        "value": round(measurement.value, 4),
        "target": f"{target.side} {target.value:g} {target.unit}",
        "holds": holds,
        "ours": [round(value, 4) for value in measurement.ours],
        "other": [round(value, 4) for value in measurement.other],
    }
    print(json.dumps(line), flush=True)
    return holds


def interleaved(
    bar: str, scale: Scale, ours: Callable[[], float], other: Callable[[], float]
) -> Measurement:
    """Measure two things in turns; the value is the difference of their medians."""
    own, others = [], []
    ours(), other()  # once uncounted: caches are warm for both alike
    for _ in range(scale.repetitions):
        own.append(ours())
        others.append(other())
    value = statistics.median(own) - statistics.median(others)
    return Measurement(bar, value, own, others)


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
