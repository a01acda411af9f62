"""The services in one process of their own, to be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from modelyard import Client, ModelyardError
from modelyard._transport.calls import call
from modelyard.cli import app as cli
from modelyard.metadata.v1 import lineage_service_pb2 as service
from modelyard.metadata.v1 import version_use_pb2

from services.suite.children import SERVICES, Layout, children
from services.suite.start import free_port

SECONDS = 30.0
START_SECONDS = 90.0


class Services:
    """The four services of an embedded suite, without the rest of it."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder, free_port(), free_port())
        self.layout.prepare()
        self.log = self.layout.logs / "services.log"

    def start(self, **settings: str) -> None:
        """Start them, or start them again on the same data."""
        child = next(c for c in children(self.layout) if c.name == SERVICES)
        environment = {k: v for k, v in child.environment.items() if k != "MODELYARD_REDIS_URL"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                child.command, env=environment | settings, stdout=log, stderr=log
            )
        until(self.answers, seconds=START_SECONDS)

    def kill(self) -> None:
        """Kill them by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def token(self) -> str:
        """Return the secret that may do everything."""
        return self.layout.admin_token.read_text().strip()

    def client(self, token: str = "", *, timeout: float = 10.0) -> Client:
        """Connect."""
        return Client(
            self.layout.address, token=token or self.token(), project="default", timeout=timeout
        )

    def answers(self) -> bool:
        """Say whether they can be called."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        if not self.layout.admin_token.exists():
            return False
        with self.client(timeout=1) as client:
            try:
                return bool(client.projects.get().name)
            except ModelyardError:
                return False


def until(condition: Callable[[], object], *, seconds: float = SECONDS) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@contextmanager
def running(folder: Path, **settings: str) -> Iterator[Services]:
    services = Services(folder)
    try:
        services.start(**settings)
        yield services
    finally:
        services.kill()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running(tmp_path_factory.mktemp("services")) as services:
        yield services


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with services.client() as client:
        yield client


@pytest.fixture(scope="module")
def artifact(services: Services, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "model.txt").write_text("weights")
    with services.client() as client:
        return client.artifacts.push(folder).name


def use(client: Client, version: str, *, ends: bool = False) -> str:
    """Record that a deployment of the version's model uses it, or no longer does."""
    model, _, number = version.partition("/")
    user = f"projects/default/environments/production/deployments/{model}"
    told = version_use_pb2.VersionUse(
        version=f"projects/default/models/{model}/versions/{number}", user=user
    )
    start = service.StartVersionUseRequest(version_use=told)
    end = service.EndVersionUseRequest(version_use=told)
    if ends:
        client.connection.call(call(end, service.EndVersionUseResponse, lambda r: r))
    else:
        client.connection.call(call(start, service.StartVersionUseResponse, lambda r: r))
    return user


Command = Callable[..., str]


@pytest.fixture
def command(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command of the command line in this process; return what it wrote."""
    for key in [key for key in os.environ if key.startswith("MODELYARD_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("MODELYARD_SERVER", services.layout.address)
    monkeypatch.setenv("MODELYARD_TOKEN", services.token())
    monkeypatch.setenv("MODELYARD_PROJECT", "default")
    app = cli.make_app()

    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
        capsys.readouterr()
        assert cli.run(app) == status, capsys.readouterr()
        written = capsys.readouterr()
        return written.out if status == 0 else written.err

    return run
