"""A running suite, as tests see it: an address, a token, and processes to kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from modelyard import Client
from modelyard.builder.v1 import build_pb2

from services.suite.children import Layout, children
from services.suite.start import start_suite
from tests.servers.processes import free_port

# Virtual environments are made once for all suites of a test run, as on one machine.
ENVIRONMENTS = Path(tempfile.gettempdir()) / f"modelyard-test-environments-{os.getuid()}"
SHARED = {
    "MODELYARD_WORKER_ENVIRONMENTS": str(ENVIRONMENTS),
    "MODELYARD_AGENT_ENVIRONMENTS": str(ENVIRONMENTS),
}
TINY = Path(__file__).with_name("sources") / "tiny"
TERMINAL = (
    build_pb2.BUILD_STATE_SUCCEEDED,
    build_pb2.BUILD_STATE_FAILED,
    build_pb2.BUILD_STATE_CANCELLED,
)


@dataclass(slots=True)
class Suite:
    """Where a suite answers and who may do everything there."""

    address: str
    token: str
    processes: list[psutil.Process] = field(default_factory=list)

    def client(self, project: str = "default") -> Client:
        """Connect as the administrator."""
        return Client(self.address, token=self.token, project=project)

    def find(self, *words: str) -> list[psutil.Process]:
        """Find the suite's processes whose command line holds all the words.

        A child between fork and exec still shows its parent's command line: not counted.
        """
        found: dict[int, psutil.Process] = {}
        for root in self.processes:
            for process in [root, *_descendants(root)]:
                line = _command_line(process)
                if line and all(any(word in part for part in line) for word in words):
                    parent = found.get(_parent(process))
                    if parent is None or _command_line(parent) != line:
                        found[process.pid] = process
        return list(found.values())

    def predict(
        self, environment: str, model: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ask the live version, once, without a second try; the tiny model unless told what."""
        with self.client() as client:
            address = client.environments.get(environment).address
        return predict(address, model, body)


class EmbeddedSuite(Suite):
    """What `modelyard up` runs, in a folder of its own."""

    def __init__(self, data: Path, environment: dict[str, str] | None = None) -> None:
        self.environment = {**SHARED, **(environment or {})}
        self.layout = Layout(data, free_port(), free_port())
        super().__init__(self.layout.address, "")
        self.keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again on the same data."""
        self.keeper = start_suite(self.layout, environment=self.environment)
        self.token = self.layout.admin_token.read_text().strip()
        self.processes = [psutil.Process(self.keeper.pid)]

    def stop(self) -> None:
        """Stop it in order."""
        if self.keeper is not None:
            self.keeper.terminate()
            self.keeper.wait(60)

    def services(self) -> psutil.Process:
        """Find the process of the four services."""
        (found,) = [p for p in self.find("services") if p.cmdline()[-2:] == ["-m", "services"]]
        return found

    def start_worker(self, data: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start another worker, outside of the cage."""
        environment = next(c.environment for c in children(self.layout) if c.name == "worker")
        return subprocess.Popen(
            [sys.executable, "-m", "services.builder.worker"],
            env={
                **os.environ,
                **environment,
                "MODELYARD_WORKER_DATA": str(data),
                **self.environment,
                **variables,
            },
        )

    def kill(self) -> list[psutil.Process]:
        """Kill its keeper by SIGKILL; return what ran under it, which must end too."""
        assert self.keeper is not None
        everything = _descendants(psutil.Process(self.keeper.pid))
        self.keeper.kill()
        self.keeper.wait()
        return everything


def predict(address: str, model: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a live model over HTTP."""
    tiny = {"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}
    request = urllib.request.Request(
        f"http://{address}/v2/models/{model}/infer",
        data=json.dumps(body or {"inputs": [tiny]}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return dict(json.load(answer))


def copy_source(destination: Path, *, failing_test: bool = False) -> Path:
    """Copy the tiny model's source, with a test that fails if wished."""
    shutil.copytree(TINY, destination)
    if failing_test:
        (destination / "FAIL").touch()
    return destination


def build(client: Client, model: str, *, source: Path = TINY, **params: object) -> build_pb2.Build:
    """Build the tiny model and return the build that ended."""
    order = client.builds.create(source, model=model, params=params)
    return client.builds.wait(order.name, timeout=180)


def until(condition: Callable[[], Any], *, seconds: float = 60.0, what: str = "") -> Any:
    """Wait for a condition; return its first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what or condition}")


def gone(processes: list[psutil.Process]) -> bool:
    """Say whether all of the processes have ended."""
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def kill(process: psutil.Process) -> None:
    """Kill a process by SIGKILL."""
    os.kill(process.pid, signal.SIGKILL)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0
