"""The bars: each side in turns, on the same bytes, in the same run."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.artifact import bare, content, replica
from benchmarks.metadata.generators import Generator
from benchmarks.runner import Measurement, Scale, seconds

GIB = 1024**3
SMALL_BYTES = 1_000 * 100_000


@dataclass(frozen=True, slots=True)
class Setting:
    """The sides, and where their files are."""

    scale: Scale
    folder: Path
    ours: Generator
    theirs: Generator
    bare: grpc.Channel
    server: psutil.Process
    environment: Mapping[str, str]

    def push(self, side: Generator, tree: str) -> tuple[float, dict[str, Any]]:
        """Send a tree; return the seconds and what the generator told."""
        answer = self.folder / "answer.json"
        os.sync()  # what was written before is not this one's to pay for
        load = side.run(
            "push", requests=1, minimum=1, path=str(self.folder / tree), answer=str(answer)
        )
        return load.elapsed, json.loads(answer.read_text())

    def pull(self, side: Generator, artifact: str, size: int) -> float:
        """Fetch a tree; return the seconds."""
        os.sync()
        arguments: dict[str, Any] = {"artifact": artifact, "folder": str(self.folder), "size": size}
        return side.run("pull", requests=1, minimum=1, **arguments).median


def measure(setting: Setting) -> Iterator[Measurement]:
    """Measure every bar."""
    yield from _large(setting)
    yield from _small(setting)
    yield from _second_versions(setting)
    yield from _fine_tuned(setting)
    yield from _replicas(setting)
    yield from _memory(setting)


def _ratio(bar: str, ours: list[float], other: list[float]) -> Measurement:
    """Say how many times as fast we are: the other's seconds by ours, of the medians."""
    return Measurement(bar, statistics.median(other) / statistics.median(ours), ours, other)


def _large(s: Setting) -> Iterator[Measurement]:
    up: dict[str, list[float]] = {"ours": [], "theirs": [], "bare": []}
    down: dict[str, list[float]] = {"ours": [], "theirs": [], "bare": []}
    for repetition in range(s.scale.repetitions + 1):
        content.large(s.folder / "large", GIB)
        ours, told = s.push(s.ours, "large")
        theirs, their = s.push(s.theirs, "large")
        stream = seconds(lambda: bare.upload(s.bare, GIB))
        got = s.pull(s.ours, told["artifact"], GIB)
        their_got = s.pull(s.theirs, their["run"], GIB)
        stream_down = seconds(lambda: bare.download(s.bare, GIB))
        if repetition:  # the first one is not counted: caches are warm for all alike
            _add(up, ours, theirs, stream)
            _add(down, got, their_got, stream_down)
    yield _ratio("upload 1 GiB, against MLflow", up["ours"], up["theirs"])
    yield _ratio("upload 1 GiB, of a bare gRPC stream", up["ours"], up["bare"])
    yield _ratio("download 1 GiB, against MLflow", down["ours"], down["theirs"])
    yield _ratio("download 1 GiB, of a bare gRPC stream", down["ours"], down["bare"])


def _add(into: dict[str, list[float]], ours: float, theirs: float, stream: float) -> None:
    into["ours"].append(ours)
    into["theirs"].append(theirs)
    into["bare"].append(stream)


def _small(s: Setting) -> Iterator[Measurement]:
    up: tuple[list[float], list[float]] = ([], [])
    down: tuple[list[float], list[float]] = ([], [])
    for _ in range(s.scale.repetitions):
        content.small(s.folder / "small")
        ours, told = s.push(s.ours, "small")
        theirs, their = s.push(s.theirs, "small")
        up[0].append(ours)
        up[1].append(theirs)
        down[0].append(s.pull(s.ours, told["artifact"], SMALL_BYTES))
        down[1].append(s.pull(s.theirs, their["run"], SMALL_BYTES))
    yield _ratio("1,000 x 100 KB up", *up)
    yield _ratio("1,000 x 100 KB down", *down)


def _second_versions(s: Setting) -> Iterator[Measurement]:
    tree = s.folder / "large"
    content.large(tree, GIB)
    s.push(s.ours, "large")
    content.change(tree, 0.01, places=1)
    ours, told = s.push(s.ours, "large")
    theirs, _ = s.push(s.theirs, "large")
    yield _sent("second version, 1 % in place, sent", told, tree)
    yield _ratio("second version, effective rate", [ours], [theirs])
    content.insert(tree, 0.01)
    yield _sent("second version, 1 % inserted, sent", s.push(s.ours, "large")[1], tree)
    content.change(tree, 0.01, places=40)
    yield _sent("second version, 1 % in 40 places, sent", s.push(s.ours, "large")[1], tree)


def _fine_tuned(s: Setting) -> Iterator[Measurement]:
    tree = s.folder / "tuned"
    for changed in (False, True):
        content.tensors(tree, count=60, size=16 * content.MIB, changed=changed)
        _, told = s.push(s.ours, "tuned")
    yield _sent("fine-tuned safetensors, 90 % unchanged, sent", told, tree)


def _sent(bar: str, told: Mapping[str, Any], tree: Path) -> Measurement:
    size = sum(path.stat().st_size for path in tree.iterdir())
    return Measurement(bar, 100 * told["sent"] / size, [told["sent"]], [size])


def _replicas(s: Setting) -> Iterator[Measurement]:
    content.large(s.folder / "large", GIB)
    _, told = s.push(s.ours, "large")
    one, ten = [], []
    for _ in range(s.scale.repetitions):
        one.append(replica.together(s.environment, told["artifact"], s.folder, count=1))
        ten.append(replica.together(s.environment, told["artifact"], s.folder, count=10))
    value = statistics.median(ten) / statistics.median(one)
    yield Measurement("ten processes through one cache", value, ten, one)


def _memory(s: Setting) -> Iterator[Measurement]:
    size = GIB if s.scale.quick else 4 * GIB
    content.large(s.folder / "large", size)
    Path(f"/proc/{s.server.pid}/clear_refs").write_text("5")  # forget the peak up to now
    _, told = s.push(s.ours, "large")
    s.pull(s.ours, told["artifact"], size)
    client = s.ours.run("memory", requests=1, minimum=1).median
    status = Path(f"/proc/{s.server.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    yield Measurement("peak memory of the client", client, [client], [size])
    yield Measurement("peak memory of the service", peak / 1024, [peak / 1024], [size])
