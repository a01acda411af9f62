"""`python -m benchmarks.builder [--quick]`: the bars of the builder."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.builder import events, overhead
from benchmarks.builder.setting import running
from benchmarks.runner import Measurement, Scale, main


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group, in one suite."""
    with running(scale) as setting:
        yield from events.measure(setting)
        yield from overhead.measure(setting)


if __name__ == "__main__":
    main("builder", measure)
