"""The suite's own bars: how soon it is there, and what it costs while it waits."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.runner import Measurement, Scale, interleaved, main, seconds
from services.suite.children import Layout
from services.suite.start import free_port, start_suite

IDLE_SECONDS = 3.0
MILLISECONDS = 1_000


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group."""
    starts, memory = zip(*(_start_once() for _ in range(scale.repetitions)), strict=True)
    yield Measurement("start to ready", statistics.median(starts), list(starts), [])
    yield Measurement("idle memory of all processes", statistics.median(memory), list(memory), [])
    bare = [sys.executable, "-c", "pass"]
    for bar, command in (
        ("import modelyard above bare Python", [sys.executable, "-c", "import modelyard"]),
        ("modelyard --help above bare Python", [str(_modelyard()), "--help"]),
    ):
        yield interleaved(bar, scale, lambda c=command: _run(c), lambda: _run(bare))  # type: ignore[misc]


def _start_once() -> tuple[float, float]:
    """Start a fresh suite; return seconds until every process is up, and its idle megabytes."""
    folder = Path(tempfile.mkdtemp(prefix="modelyard-benchmark-"))
    layout = Layout(folder, free_port(), free_port())
    started = time.perf_counter()
    suite = start_suite(layout, environment={})
    try:
        took = time.perf_counter() - started
        time.sleep(IDLE_SECONDS)
        return took, _resident(suite.pid)
    finally:
        suite.terminate()
        suite.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _resident(pid: int) -> float:
    """Return the megabytes that a process and all under it hold, shared pages counted once."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def _run(command: list[str]) -> float:
    """Return how many milliseconds a command takes."""
    return MILLISECONDS * seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def _modelyard() -> Path:
    return Path(sys.executable).with_name("modelyard")


if __name__ == "__main__":
    main("suite", measure)
