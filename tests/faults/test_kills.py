"""Kills of everything, in the middle of everything: what was promised still holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard import Client
from modelyard.builder.v1 import build_pb2
from modelyard.deployer.v1 import deployment_pb2

from services.demo.load import Load
from tests.e2e.suite import (
    TERMINAL,
    TINY,
    EmbeddedSuite,
    build,
    copy_source,
    gone,
    kill,
    predict,
    until,
)
from tests.faults.checked import assert_sound

BODY = '{"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [1, 2]}]}'


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that builds see: for the files that training waits for."""
    folder = tmp_path_factory.mktemp("gates")
    folder.chmod(0o755)  # builds run as an account of their own
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, gates: Path) -> Iterator[EmbeddedSuite]:
    """A suite of our own to kill."""
    seen = {"MODELYARD_WORKER_SANDBOX_PATHS": str(gates)}
    suite = EmbeddedSuite(tmp_path_factory.mktemp("faults"), seen)
    suite.start()
    yield suite
    suite.stop()


@pytest.fixture
def client(suite: EmbeddedSuite) -> Iterator[Client]:
    with suite.client() as client:
        yield client


def start_training(client: Client, model: str, gate: Path) -> build_pb2.Build:
    """Order a build whose training waits for a file; return once it trains."""
    order = client.builds.create(TINY, model=model, params={"wait_for": str(gate)})
    until(lambda: trains(client, order.name), seconds=120, what="the build to train")
    return order


def trains(client: Client, name: str, attempt: int = 1) -> bool:
    current = client.builds.get(name)
    assert current.state not in TERMINAL, current
    phase = current.phases[build_pb2.PHASE_KIND_TRAIN - 1]
    return current.attempt >= attempt and phase.state == build_pb2.PHASE_STATE_RUNNING


def versions(client: Client, model: str) -> list[str]:
    return [version.name for version in client.versions.list(model)]


def test_a_failing_test_ends_the_build_before_a_version(client: Client, tmp_path: Path) -> None:
    source = copy_source(tmp_path / "failing", failing_test=True)
    ended = build(client, "failing", source=source)
    assert ended.state == build_pb2.BUILD_STATE_FAILED
    assert ended.failure.reason == "TEST_FAILED"
    states = [phase.state for phase in ended.phases]
    assert states[build_pb2.PHASE_KIND_TEST - 1] == build_pb2.PHASE_STATE_FAILED
    assert states[build_pb2.PHASE_KIND_TEST :] == [build_pb2.PHASE_STATE_PENDING] * 2
    lines = [e.log.text for e in client.builds.logs(ended.name) if e.HasField("log")]
    assert any("test_that_can_be_made_to_fail" in line for line in lines)
    assert ended.version == ""
    assert "failing" not in [m.name.rpartition("/")[2] for m in client.models.list()] or (
        versions(client, "failing") == []
    )


def test_a_killed_worker_s_build_is_tried_again_and_registers_once(
    suite: EmbeddedSuite, client: Client, gates: Path
) -> None:
    gate = gates / "killed"
    order = start_training(client, "killed", gate)
    trainers = until(lambda: suite.find("modelyard.building.train"), what="the training process")
    (worker,) = suite.find("services.builder.worker")
    kill(worker)
    assert_sound(suite.layout.data)
    until(lambda: gone(trainers), seconds=5, what="the killed worker's processes to end")
    until(lambda: trains(client, order.name, attempt=2), seconds=90, what="a second attempt")
    gate.touch()
    ended = client.builds.wait(order.name, timeout=120)
    assert ended.state == build_pb2.BUILD_STATE_SUCCEEDED, ended
    assert ended.attempt == 2
    assert versions(client, "killed") == [ended.version]


def test_a_stopped_worker_wakes_up_to_nothing(
    suite: EmbeddedSuite, client: Client, gates: Path, tmp_path: Path
) -> None:
    gate = gates / "stopped"
    order = start_training(client, "stopped", gate)
    (worker,) = suite.find("services.builder.worker")
    other = suite.start_worker(tmp_path / "other")
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        until(lambda: trains(client, order.name, attempt=2), seconds=90, what="a second attempt")
        gate.touch()
        ended = client.builds.wait(order.name, timeout=120)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    assert ended.state == build_pb2.BUILD_STATE_SUCCEEDED, ended
    # The zombie learns that it lost its lease: its processes end, and it publishes nothing.
    until(lambda: not suite.find("modelyard.building"), seconds=30, what="the zombie to let go")
    other.terminate()
    other.wait(60)
    assert versions(client, "stopped") == [ended.version]


def test_live_traffic_does_not_notice_killed_services(suite: EmbeddedSuite, client: Client) -> None:
    go_live(client, "calm", level=1.0)
    address = client.environments.get("calm").address
    with Load(address, "calm", [BODY], rows=2) as load:
        for _ in range(2):
            before = load.tally.total
            kill(suite.services())
            assert_sound(suite.layout.data)
            until(lambda before=before: load.tally.total > before + 200, what="more requests")  # type: ignore[misc]
            until(lambda: answers(client), what="the services to be back")
    assert load.tally.failures == []
    assert set(load.tally.answered) == {"1"}


def test_the_whole_suite_killed_in_train_and_in_a_deployment(
    suite: EmbeddedSuite, client: Client, gates: Path
) -> None:
    version = go_live(client, "whole", level=1.0)
    second = build(client, "whole", level=2.0).version
    gate = gates / "whole"
    order = start_training(client, "whole", gate)
    client.deployments.deploy(second, environment="whole")
    everything = suite.kill()
    until(lambda: gone(everything), seconds=5, what="everything to end with the suite")
    assert_sound(suite.layout.data)

    suite.start()
    with suite.client() as again:
        gate.touch()
        ended = again.builds.wait(order.name, timeout=180)
        assert ended.state in (build_pb2.BUILD_STATE_SUCCEEDED, build_pb2.BUILD_STATE_FAILED)
        assert ended.version or ended.failure.reason
        settled = again.deployments.wait("whole", environment="whole", timeout=120)
        assert settled.state in (
            deployment_pb2.DEPLOYMENT_STATE_LIVE,
            deployment_pb2.DEPLOYMENT_STATE_FAILED,
        )
        live = {r.number: r.version for r in settled.revisions}[settled.live_revision]
        assert live in (version, second)
        address = again.environments.get("whole").address
        answer = until(lambda: try_predict(address, "whole"), what="the live version to answer")
        assert answer["model_version"] == live.rpartition("/")[2]
        registered = versions(again, "whole")
        assert len(registered) == len(set(registered))


def go_live(client: Client, model: str, *, level: float) -> str:
    """Build a version and put it into an environment of its own."""
    version = build(client, model, level=level).version
    client.environments.create(model)
    client.deployments.deploy(version, environment=model)
    settled = client.deployments.wait(model, environment=model, timeout=120)
    assert settled.state == deployment_pb2.DEPLOYMENT_STATE_LIVE, settled
    return version


def answers(client: Client) -> bool:
    try:
        return bool(client.projects.get())
    except Exception:  # down, in whatever way
        return False


def try_predict(address: str, model: str) -> dict[str, object] | None:
    try:
        return predict(address, model)
    except OSError:
        return None
