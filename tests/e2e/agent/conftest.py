"""The services and the target agent, each a process of its own that a test may kill."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import Client
from modelyard.bundle import LOCK_FILE
from modelyard.errors import ModelyardError
from modelyard.metadata.v1 import run_service_pb2, run_service_pb2_grpc
from modelyard.packing.writer import write_built

from services.suite.children import Layout, children
from services.suite.start import free_port
from tests.e2e.agent.source.model import Times

SOURCE = Path(__file__).with_name("source")
LOCK = f"numpy=={version_of('numpy')}\n".encode()
START_SECONDS = 60.0


@dataclass
class Site:
    """A running suite without worker or supervisor."""

    layout: Layout
    settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start `services` or `agent`."""
        child = next(c for c in children(self.layout) if c.name == name)
        own = {"MODELYARD_REDIS_URL": "", **self.settings}
        environment = {**os.environ, **child.environment, **own}
        with (self.layout.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                child.command, env=environment, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """End a process by SIGKILL."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End everything in order."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(30)

    def client(self) -> Client:
        """Connect as the administrator, once the services answer."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client = Client(self.layout.address, token=self.layout.admin_token.read_text())
                client.projects.get("default")
            except (ModelyardError, FileNotFoundError):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return client

    def register(self, folder: Path, model: str, factor: int, **how: Any) -> Any:
        """Register a version that multiplies by a factor; see `register`."""
        with self.client() as client:
            return register(client, folder, model, factor, **how)


def register(
    client: Client,
    folder: Path,
    model: str,
    factor: int,
    *,
    broken: bool = False,
    other_lock: bytes = b"",
    run: str = "",
    **attributes: Any,
) -> Any:
    """Push a bundle that multiplies by a factor, and register it as a version.

    With another lock put into it the version still names the one it was built with.
    """
    bundle = folder / f"{model}-{factor}"
    state = Times()
    state.factor = factor
    for name, value in attributes.items():
        setattr(state, name, value)
    if broken:
        state.factor = "no number"  # type: ignore[assignment]  # that is the point
    write_built(bundle, state, entry="model:Times", source=SOURCE, name=model, lock=LOCK)
    if other_lock:
        (bundle / LOCK_FILE).write_bytes(other_lock)
    artifact = client.artifacts.push(bundle)
    digest = hashlib.sha256(LOCK).hexdigest()
    return client.versions.create(model, artifact.name, environment_digest=digest, run=run or None)


def run_on(site: Site, model: str, dataset_version: str) -> str:
    """Have a run that used a dataset version for training; return its name."""
    with site.client() as client:
        run = client.runs.create(model).name
    request = run_service_pb2.IngestRunDataRequest(run=run, writer="test", end_sequence=1)
    request.datasets.add(role="train", dataset_version=dataset_version)
    token = site.layout.admin_token.read_text().strip()
    with grpc.insecure_channel(site.layout.address) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),)
        answers = stub.IngestRunData(iter([request]), metadata=metadata, timeout=START_SECONDS)
        assert [answer.acknowledged_sequence for answer in answers] == [1]
    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(Layout(tmp_path_factory.mktemp("site"), free_port(), free_port()))
    site.layout.prepare()
    site.start("services")
    site.start("agent")
    with site.client() as client:
        client.environments.create("production")
    yield site
    site.stop()
