"""Killed at each rename and each flush of a fixed script: what was acknowledged is kept, once.

strace kills the services at the n-th such call of any of their threads. The folder is checked
as it lies; then the services are started again and the same script is run with the same
request ids.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from modelyard import Client
from modelyard.deployer.v1 import environment_pb2, environment_service_pb2
from modelyard.errors import ModelyardError
from modelyard.metadata.v1 import (
    alias_pb2,
    model_pb2,
    model_service_pb2,
    run_service_pb2,
    version_pb2,
)

from services.suite.children import Layout, children
from services.suite.start import free_port
from tests.faults.checked import assert_sound

PROJECT = "projects/default"
MODEL = f"{PROJECT}/models/crash"
CALLS = ("rename", "fsync", "fdatasync")
SECONDS = 60.0
POINTS = int(os.environ.get("MODELYARD_CRASH_POINTS", "12"))


@contextmanager
def services(layout: Layout, *under: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the four services in one process, without Redis."""
    (child,) = [child for child in children(layout) if child.name == "services"]
    environment = {**child.environment, "MODELYARD_REDIS_URL": "", "MODELYARD_LOG_LEVEL": "ERROR"}
    with (layout.logs / "services.log").open("ab") as log:
        process = subprocess.Popen(
            [*under, *child.command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Script:
    """Calls in a fixed order, with fixed request ids; it knows what was acknowledged."""

    def __init__(self, layout: Layout, tree: Path) -> None:
        self.layout, self.tree = layout, tree
        self.acknowledged: dict[str, str] = {}
        self.problem: Exception | None = None
        self._ended = False

    def run(self, process: subprocess.Popen[bytes]) -> bool:
        """Run it to its end; False when the services died meanwhile."""
        while not _answers(self.layout):
            if process.poll() is not None:
                return False
        client = Client(self.layout.address, token=self._token(), project="default", timeout=5)
        steps = threading.Thread(target=self._attempt, args=(client,))
        steps.start()
        while steps.is_alive() and process.poll() is None:
            steps.join(0.05)
        # A push waits a while for services to come back: these do not.
        client.close()
        steps.join()
        return self._ended

    def _attempt(self, client: Client) -> None:
        try:
            self._steps(client)
            self._ended = True
        except Exception as error:  # the services were killed, or it is told below
            self.problem = error

    def _token(self) -> str:
        return self.layout.admin_token.read_text().strip()

    def _steps(self, client: Client) -> None:
        steps: list[tuple[str, str, Any, Callable[[Any], str]]] = [
            (
                "model",
                "metadata.v1.ModelService/CreateModel",
                model_service_pb2.CreateModelRequest(
                    parent=PROJECT, model_id="crash", model=model_pb2.Model()
                ),
                lambda raw: model_service_pb2.CreateModelResponse.FromString(raw).model.name,
            ),
            (
                "run",
                "metadata.v1.RunService/CreateRun",
                run_service_pb2.CreateRunRequest(parent=MODEL),
                lambda raw: run_service_pb2.CreateRunResponse.FromString(raw).run.name,
            ),
            (
                "version",
                "metadata.v1.ModelService/CreateVersion",
                model_service_pb2.CreateVersionRequest(parent=MODEL, version=version_pb2.Version()),
                lambda raw: model_service_pb2.CreateVersionResponse.FromString(raw).version.name,
            ),
            (
                "alias",
                "metadata.v1.ModelService/UpdateAlias",
                model_service_pb2.UpdateAliasRequest(
                    alias=alias_pb2.Alias(
                        name=f"{MODEL}/aliases/live", version=f"{MODEL}/versions/1"
                    )
                ),
                lambda raw: model_service_pb2.UpdateAliasResponse.FromString(raw).alias.version,
            ),
            (
                "environment",
                "deployer.v1.EnvironmentService/CreateEnvironment",
                environment_service_pb2.CreateEnvironmentRequest(
                    parent=PROJECT, environment_id="e", environment=environment_pb2.Environment()
                ),
                lambda raw: (
                    environment_service_pb2.CreateEnvironmentResponse.FromString(
                        raw
                    ).environment.name
                ),
            ),
        ]
        channel: Any = client.connection.channel
        for step, path, request, name_of in steps:
            request.request_id = f"crash-{step}"
            if step == "version":
                request.version.artifact = client.artifacts.push(self.tree).name
            raw = channel.unary_unary(f"/modelyard.{path}")(
                request.SerializeToString(),
                metadata=(("authorization", f"Bearer {self._token()}"),),
                timeout=10,
            )
            name = name_of(raw)
            assert self.acknowledged.setdefault(step, name) == name, f"{step} was done twice"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of services that were started once, and stopped."""
    data = tmp_path_factory.mktemp("prepared")
    layout = Layout(data, free_port(), free_port())
    layout.prepare()
    with services(layout) as process:
        deadline = time.monotonic() + SECONDS
        while not (layout.admin_token.exists() and _answers(layout)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        process.wait()
    return data


def _answers(layout: Layout) -> bool:
    token = layout.admin_token.read_text().strip()
    try:
        with Client(layout.address, token=token, project="default", timeout=2) as client:
            return bool(client.projects.get())
    except ModelyardError:
        time.sleep(0.05)
        return False


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_point(call: str, prepared: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "weights.bin").write_bytes(os.urandom(300_000))
    killed = acknowledged = 0
    for point in range(1, POINTS + 1):
        data = tmp_path / f"{call}-{point}"
        shutil.copytree(prepared, data)
        layout = Layout(data, free_port(), free_port())
        script = Script(layout, tree)
        inject = f"inject={call}:signal=KILL:when={point}"
        with services(
            layout, "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject
        ) as process:
            ended = script.run(process)
            died = process.poll() is not None
        assert ended or died, script.problem
        assert_sound(data)
        killed += died
        acknowledged += len(script.acknowledged) if died else 0
        with services(layout) as process:
            assert script.run(process), script.problem
            with Client(layout.address, token=script._token(), project="default") as client:
                assert [v.name for v in client.versions.list("crash")] == [f"{MODEL}/versions/1"]
        assert_sound(data)
        shutil.rmtree(data)
        if not died:
            break
    print(f"{call}: killed at {killed} points, {acknowledged} acknowledged before, 0 lost")
    assert killed >= 1
