"""The shipped server, with its defaults, in a process of its own.

It is what `modelyard up` runs: the four services on one port and the private
Redis-protocol server, with the same settings but for the database under measurement.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import modelyard
import psutil

from services.suite.children import SERVICES, Child, Layout, children
from services.suite.start import free_port

START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class OurServer:
    """A running server."""

    address: str
    token: str
    process: psutil.Process

    def client(self) -> modelyard.Client:
        """Return a client that may do everything."""
        return modelyard.Client(self.address, token=self.token, project="default")

    def cpu_seconds(self) -> float:
        """Return the processor time the server has used."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def running(
    folder: Path, database_url: str = "", *, runs: int, versions: int = 0
) -> Iterator[OurServer]:
    """Run the services in a folder; on the suite's own SQLite file unless told otherwise.

    The database is fresh but for so many seeded runs and versions.
    """
    layout = Layout(folder, free_port(), free_port())
    layout.prepare()
    wanted = {child.name: child for child in children(layout)}
    environment = dict(wanted[SERVICES].environment)
    if database_url:
        environment["MODELYARD_METADATA_DATABASE_URL"] = database_url
    url = environment["MODELYARD_METADATA_DATABASE_URL"]
    seed = (sys.executable, "-m", "benchmarks.metadata.seeding", url, str(runs), str(versions))
    subprocess.run(seed, check=True)
    with ExitStack() as stack:
        stack.enter_context(_started(wanted["valkey"], layout, wanted["valkey"].environment))
        process = stack.enter_context(_started(wanted[SERVICES], layout, environment))
        _wait_ready(process, layout)
        token = layout.admin_token.read_text().strip()
        yield OurServer(layout.address, token, psutil.Process(process.pid))


@contextmanager
def _started(
    child: Child, layout: Layout, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with (layout.logs / f"{child.name}.log").open("ab") as log:
        process = subprocess.Popen(child.command, env=environment or None, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], layout: Layout) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(layout):
        if process.poll() is not None or time.monotonic() > deadline:
            log = (layout.logs / f"{SERVICES}.log").read_text(errors="replace")
            raise RuntimeError(f"the services did not start:\n{log[-4000:]}")
        time.sleep(0.1)


def _answers(layout: Layout) -> bool:
    if not layout.admin_token.exists():
        return False
    token = layout.admin_token.read_text().strip()
    with modelyard.Client(layout.address, token=token, project="default", timeout=2) as client:
        try:
            client.projects.get("default")
        except modelyard.ModelyardError:
            return False
    return True
