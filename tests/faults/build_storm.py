"""A storm of kill -9 over short builds, and the ledger of what was seen meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, TypeVar

import psutil
from modelyard import Client
from modelyard.builder.v1 import build_event_pb2, build_pb2
from modelyard.errors import ModelyardError

from tests.e2e.suite import TERMINAL, EmbeddedSuite, gone, kill, until
from tests.faults.checked import assert_sound

LINES = 60
MODEL = f"""
import time

import modelyard


class Short(modelyard.Model):
    example = {{"x": [1.0]}}

    def build(self, context):
        for number in range({LINES}):
            print("line", number, flush=True)
            time.sleep(0.01)

    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""
AT_ONCE = 4
ORPHAN_SECONDS = 5.0
RUNNING = (build_pb2.BUILD_STATE_RUNNING, build_pb2.BUILD_STATE_CANCELLING)
Event: TypeAlias = build_event_pb2.BuildEvent
T = TypeVar("T")


@dataclass
class Storm:
    """Workers of our own, builds for them, and one who follows each."""

    suite: EmbeddedSuite
    client: Client
    source: Path
    folder: Path
    builds: list[str] = field(default_factory=list)
    seen: dict[str, list[Event]] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    followers: list[threading.Thread] = field(default_factory=list)
    hits: int = 0
    kills: int = 0

    def order(self) -> None:
        """Order a build and follow it."""
        build = patient(
            lambda: self.client.builds.create(self.source, model="storm", skip_tests=True)
        )
        self.builds.append(build.name)
        self.seen[build.name] = []
        follower = threading.Thread(target=self._follow, args=(build.name,), daemon=True)
        follower.start()
        self.followers.append(follower)

    def _follow(self, name: str) -> None:
        self.seen[name] += self.client.builds.follow(name)

    def fill(self) -> None:
        """Keep builds in the queue."""
        while len(self.unended()) < AT_ONCE:
            self.order()

    def unended(self) -> list[build_pb2.Build]:
        """Return the builds that have not ended."""
        return [b for b in self.states() if b.state not in TERMINAL]

    def states(self) -> list[build_pb2.Build]:
        return patient(lambda: [self.client.builds.get(name) for name in self.builds])

    def lines(self) -> int:
        """Count the lines of the builds' own that were seen."""
        events = (event for seen in self.seen.values() for event in seen)
        return sum(event.log.text.startswith("line ") for event in events)

    def start_worker(self, number: int) -> None:
        data = self.folder / f"worker-{number}"
        settings = {"NAME": f"storm-{number}", "CONCURRENCY": "2"}
        variables = {f"MODELYARD_WORKER_{key}": value for key, value in settings.items()}
        self.workers[number:] = [
            self.suite.start_worker(data, **variables),
            *self.workers[number + 1 :],
        ]

    def strike(self, victim: str) -> None:
        """Kill a worker, the services or Redis, with builds in flight if there are any."""
        self.fill()
        until(lambda: any(b.state in RUNNING for b in self.unended()), what="a build in flight")
        time.sleep(random.random() * 0.5)  # noqa: S311 - when, is for chance to say
        running = [b for b in self.unended() if b.state in RUNNING]
        self.kills += 1
        if victim == "worker":
            self._kill_worker(running)
        else:
            self.hits += bool(running)
            kill(self.suite.services() if victim == "services" else self._valkey())
        assert_sound(self.suite.layout.data)

    def _kill_worker(self, running: list[build_pb2.Build]) -> None:
        number = random.randrange(len(self.workers))  # noqa: S311
        worker = self.workers[number]
        children = psutil.Process(worker.pid).children(recursive=True)
        self.hits += any(f"storm-{number}-" in build.worker for build in running)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        until(
            lambda: gone(children),
            seconds=ORPHAN_SECONDS,
            what=f"the end of the killed worker's {[command_of(child) for child in children]}",
        )
        self.start_worker(number)

    def _valkey(self) -> psutil.Process:
        (found,) = self.suite.find("valkey-server")
        return found


@contextmanager
def storm(suite: EmbeddedSuite, folder: Path) -> Iterator[Storm]:
    """Start workers beside the suite's own, which takes no builds."""
    source = write_source(folder)
    with suite.client() as client:
        it = Storm(suite, client, source, folder)
        for number in range(2):
            it.start_worker(number)
        try:
            yield it
        finally:
            for worker in it.workers:
                worker.kill()
                worker.wait()


def write_source(folder: Path) -> Path:
    """Write the model that prints its lines; return its folder."""
    source = folder / "source"
    source.mkdir()
    (source / "model.py").write_text(MODEL)
    return source


def patient(call: Callable[[], T]) -> T:
    """Call until there is an answer: whoever asks while all is killed asks again."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return call()
        except (ModelyardError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def check_log(live: list[Event], stored: list[Event], build: build_pb2.Build) -> None:
    """Check what was seen live against what is kept, and the lines of each attempt."""
    assert [e.SerializeToString() for e in live] == [e.SerializeToString() for e in stored]
    lines: dict[int, list[int]] = {}
    for event in stored:
        if event.log.text.startswith("line "):
            lines.setdefault(event.attempt, []).append(int(event.log.text.split()[1]))
    for numbers in lines.values():
        assert numbers == list(range(len(numbers)))
    if build.state == build_pb2.BUILD_STATE_SUCCEEDED:
        assert len(lines[build.attempt]) == LINES


def command_of(process: psutil.Process) -> str:
    """Say what a process runs; empty for one that has just ended."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:300]}"
    except psutil.NoSuchProcess:
        return ""
