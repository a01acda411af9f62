"""What a thousand times the rows cost: the same requests on a small and a grown database."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.metadata.generators import Generator
from benchmarks.runner import Measurement, Scale

SMALL = 1_000
MINIMUM_VERSIONS = 1_000
SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Side:
    """One database, and who asks it."""

    load: Generator
    versions: int


def measure(kind: str, scale: Scale, small: Side, large: Side) -> Iterator[Measurement]:
    """Measure how much slower each request is on the grown database; ours is the grown one."""
    for name, operation in (
        ("page", "page"),
        ("ordered search", "search_top"),
        ("alias lookup", "get_seeded"),
        ("create", "create_run"),
    ):
        grown, before = [], []
        for side in (small, large):
            _median(side, operation)
        for _ in range(scale.repetitions):
            before.append(_median(small, operation))
            grown.append(_median(large, operation))
        value = statistics.median(grown) / statistics.median(before)
        yield Measurement(f"{kind}: growth, {name}", value, grown, before)


def _median(side: Side, operation: str) -> float:
    arguments: dict[str, Any] = {"versions": side.versions, "model": "seeded"}
    return side.load.run(operation, seconds=SECONDS, minimum=5, **arguments).median
