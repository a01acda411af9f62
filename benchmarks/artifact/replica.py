"""One of many processes of a host that want the same version: waits for a line, then pulls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import modelyard


def start(environment: Mapping[str, str], arguments: list[str]) -> subprocess.Popen[str]:
    """Start one; it is ready on return."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.artifact.replica", *arguments],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def together(environment: Mapping[str, str], artifact: str, folder: Path, *, count: int) -> float:
    """Return how many seconds so many processes need until the last one has all, cache empty."""
    cache = folder / "cache"
    processes = [
        start(environment, [artifact, str(folder / f"replica-{number}"), str(cache)])
        for number in range(count)
    ]
    os.sync()
    started = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
    took = time.perf_counter() - started
    assert [process.wait() for process in processes] == [0] * count
    for number in range(count):
        shutil.rmtree(folder / f"replica-{number}")
    shutil.rmtree(cache)
    return took


def main() -> None:
    """Pull once told to."""
    artifact, target, cache = sys.argv[1:]
    with modelyard.Client(project="default") as client:
        client.artifacts.get(artifact)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        client.artifacts.pull(artifact, target, cache=cache)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
