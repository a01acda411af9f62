"""A running suite, and builds that do next to nothing in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import modelyard
from modelyard.builder.v1 import build_pb2

from benchmarks.runner import Scale
from services.suite.children import Layout
from services.suite.start import free_port, start_suite

WORKERS = 4
WAIT_SECONDS = 600.0
MODEL = """
import sys
import time

import modelyard

TEXT = "a line as training prints them: loss=0.1234"


class Noop(modelyard.Model):
    example = {"x": [1.0]}

    def build(self, context):
        print("first line", flush=True)
        rate = context.param("rate", 0)
        start = time.monotonic()
        for number in range(context.param("lines", 0)):
            if rate:
                time.sleep(max(0.0, start + number / rate - time.monotonic()))
            print(number, time.time_ns(), TEXT)
        burst = range(context.param("burst", 0))
        sys.stdout.write("".join(f"{number} {TEXT}\\n" for number in burst))

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the suite is, and the sources to build."""

    scale: Scale
    folder: Path
    address: str
    token: str

    def client(self) -> modelyard.Client:
        """Return a client that may do everything."""
        return modelyard.Client(self.address, token=self.token, project="default")

    def async_client(self) -> modelyard.AsyncClient:
        """Return the same for asyncio."""
        return modelyard.AsyncClient(self.address, token=self.token, project="default")

    @property
    def noop(self) -> Path:
        """Return the folder of a source without requirements."""
        return self.source("noop")

    def source(self, name: str, requirements: str = "") -> Path:
        """Return the folder of a source."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "model.py").write_text(MODEL)
        if requirements:
            (folder / "requirements.txt").write_text(requirements)
        return folder

    def build(self, source: Path, **params: object) -> build_pb2.Build:
        """Order a build, wait for its end; it must succeed."""
        with self.client() as client:
            order = client.builds.create(source, model="noop", params=params)
            ended = client.builds.wait(order.name, timeout=WAIT_SECONDS)
        if ended.state != build_pb2.BUILD_STATE_SUCCEEDED:
            raise RuntimeError(f"a build failed: {ended.failure}")
        return ended


@contextmanager
def running(scale: Scale) -> Iterator[Setting]:
    """Run a suite as `modelyard up --max-workers 4` does, its environment made beforehand."""
    folder = Path(tempfile.mkdtemp(prefix="modelyard-benchmark-"))
    layout = Layout(folder / "suite", free_port(), free_port())
    suite = start_suite(layout, environment={"MODELYARD_WORKER_CONCURRENCY": str(WORKERS)})
    try:
        setting = Setting(scale, folder, layout.address, layout.admin_token.read_text().strip())
        setting.build(setting.noop)
        yield setting
    finally:
        suite.terminate()
        suite.wait()
        shutil.rmtree(folder, ignore_errors=True)


def phase_seconds(build: build_pb2.Build, kind: build_pb2.PhaseKind.ValueType) -> float:
    """Return how long a phase took."""
    phase = next(phase for phase in build.phases if phase.kind == kind)
    return (phase.end_time.ToNanoseconds() - phase.start_time.ToNanoseconds()) / 1e9
