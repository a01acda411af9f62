"""The bars of everything around the user's code: submitting, environments, the queue."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from modelyard.builder.v1 import build_pb2
from uv import find_uv_bin

from benchmarks.builder.setting import WORKERS, Setting, phase_seconds
from benchmarks.runner import Measurement, seconds

ENVIRONMENT = build_pb2.PHASE_KIND_ENVIRONMENT
REQUIREMENT = "scikit-learn"
_COMPILED = re.compile(r"byte-compiled in ([\d.]+) s")


def measure(setting: Setting) -> Iterator[Measurement]:
    """Measure every bar."""
    yield from _alone(setting)
    yield _queue(setting)
    yield _cold_environment(setting)


def _alone(setting: Setting) -> Iterator[Measurement]:
    first, whole = [], []
    with setting.client() as client:
        for _ in range(setting.scale.repetitions):
            started = time.perf_counter()
            order = client.builds.create(setting.noop, model="noop")
            lines = (event.log.text for event in client.builds.follow(order.name))
            first += [time.perf_counter() - started for line in lines if line == "first line"]
            whole.append(time.perf_counter() - started)
    yield Measurement("submit to first line", statistics.median(first), first, [])
    yield Measurement("no-op build", statistics.median(whole), whole, [])


def _queue(setting: Setting) -> Measurement:
    """Say which share of its workers' time a full queue uses."""
    count = 20 if setting.scale.quick else 200
    alone = [seconds(lambda: setting.build(setting.noop)) for _ in range(3)]
    with setting.client() as client:
        started = time.perf_counter()
        orders = [client.builds.create(setting.noop, model="noop") for _ in range(count)]
        ended = [client.builds.wait(order.name) for order in orders]
        took = time.perf_counter() - started
    if any(build.state != build_pb2.BUILD_STATE_SUCCEEDED for build in ended):
        raise RuntimeError("a build failed")
    best = min(WORKERS, os.cpu_count() or 1) / statistics.median(alone)
    return Measurement("queue, share of the workers used", count / took / best, [took], alone)


def _cold_environment(setting: Setting) -> Measurement:
    """Hold the environment phase against uv alone: no environment yet, packages in uv's cache.

    Both install the same packages, those that serving needs among them. Byte-compiling aside, on
    both sides: the suite does that apart, and says how long it took.
    """
    ours, bare = [], []
    kept = setting.folder / "suite" / "environments"
    (wheel,) = kept.glob("wheels/*/*.whl")
    packages = (REQUIREMENT, f"modelyard[serving] @ {wheel.as_uri()}")
    for number in range(setting.scale.repetitions + 1):
        source = setting.source("learn", f"{REQUIREMENT}\n")
        shutil.rmtree(kept / "projects")
        build = setting.build(source)
        phase = phase_seconds(build, ENVIRONMENT) - _compiling(setting, build)
        alone = seconds(lambda: _bare(setting.folder / "bare", packages))
        if number:  # the first fills uv's cache for both
            ours.append(phase)
            bare.append(alone)
    value = statistics.median(ours) / statistics.median(bare)
    return Measurement("cold environment, against uv alone", value, ours, bare)


def _compiling(setting: Setting, build: build_pb2.Build) -> float:
    """Return for how many seconds a build's environment was byte-compiled."""
    with setting.client() as client:
        lines = [event.log.text for event in client.builds.logs(build.name)]
    (found,) = filter(None, map(_COMPILED.fullmatch, lines))
    return float(found[1])


def _bare(folder: Path, packages: tuple[str, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # Without this project's own settings, one of which is to byte-compile.
    uv = (find_uv_bin(), "--no-config", "--quiet")
    subprocess.run([*uv, "venv", str(folder)], check=True)
    subprocess.run([*uv, "pip", "install", "--python", str(folder), *packages], check=True)
