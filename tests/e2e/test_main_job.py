"""The main job, in both settings: build, compare, gate, deploy, predict, swap, roll back."""

from __future__ import annotations

import time

import pytest
from modelyard import Client
from modelyard.builder.v1 import build_pb2
from modelyard.cli.gates import parse_gate
from modelyard.deployer.v1 import deployment_pb2
from modelyard.errors import GateRefusedError
from modelyard.metadata.v1 import version_pb2

from services.demo.load import Load
from tests.e2e.suite import Suite, build, until

MODEL = "tiny"
ENVIRONMENT = "production"


def deploy(client: Client, version: str) -> deployment_pb2.Deployment:
    client.deployments.deploy(version, environment=ENVIRONMENT, reason="test")
    return client.deployments.wait(MODEL, environment=ENVIRONMENT, timeout=180)


def test_the_main_job(suite: Suite) -> None:
    with suite.client() as client:
        client.models.create(MODEL, metric_goals={"score": "maximize"})
        wanted = ("score>=0.7", "better:score", "tests")
        gates = [parse_gate(text, project=client.project) for text in wanted]
        client.environments.create(ENVIRONMENT, gates=gates)

        first = build(client, MODEL, level=1.0, score=0.8)
        worse = build(client, MODEL, level=2.0, score=0.6)
        better = build(client, MODEL, level=3.0, score=0.9)
        for ended in (first, worse, better):
            assert ended.state == build_pb2.BUILD_STATE_SUCCEEDED, ended
            assert [p.state for p in ended.phases] == [build_pb2.PHASE_STATE_SUCCEEDED] * 6
        assert [b.version.rpartition("/")[2] for b in (first, worse, better)] == ["1", "2", "3"]

        version = client.versions.get(first.version)
        assert version.state == version_pb2.VERSION_STATE_READY
        assert version.tests_passed
        assert version.metrics["score"] == 0.8
        assert "# Tiny" in version.card
        assert version.license == "MIT"

        comparison = client.versions.compare([first.version, worse.version, better.version])
        score = next(m for m in comparison.metrics if m.key == "score")
        assert [cell.value for cell in score.cells] == [0.8, 0.6, 0.9]
        assert [cell.best for cell in score.cells] == [False, False, True]
        assert not any(found.unified_diff or found.note for found in comparison.code.differences)
        items = client.builds.compare([worse.name, better.name], code=False).items
        assert [item.version for item in items] == [worse.version, better.version]

        assert deploy(client, first.version).state == deployment_pb2.DEPLOYMENT_STATE_LIVE
        answer = suite.predict(ENVIRONMENT, MODEL)
        assert answer["model_version"] == "1"
        assert answer["outputs"][0]["data"] == [1.0, 1.0]

        with pytest.raises(GateRefusedError) as refusal:
            client.deployments.deploy(worse.version, environment=ENVIRONMENT)
        assert "0.6" in refusal.value.message
        assert suite.predict(ENVIRONMENT, MODEL)["model_version"] == "1"

        swap_under_load(client, better.version)
        assert suite.predict(ENVIRONMENT, MODEL)["outputs"][0]["data"] == [3.0, 3.0]

        client.deployments.rollback(MODEL, environment=ENVIRONMENT, reason="back")
        client.deployments.wait(MODEL, environment=ENVIRONMENT, timeout=180)
        assert suite.predict(ENVIRONMENT, MODEL)["model_version"] == "1"

        history = list(client.deployments.history(MODEL, environment=ENVIRONMENT))
        assert [r.version.rpartition("/")[2] for r in history] == ["1", "3", "1"]
        assert history[0].cause == deployment_pb2.REVISION_CAUSE_ROLLBACK
        assert history[0].actor == "user:admin"
        # The other version's use ends once it has finished its requests.
        until(lambda: in_use(client) == [first.version], what="the replaced version to drain")


def in_use(client: Client) -> list[str]:
    return [use.version for use in client.versions.uses(MODEL, current_only=True)]


def swap_under_load(client: Client, version: str) -> None:
    """Swap while requests are sent; none fails, and both versions answer."""
    address = client.environments.get(ENVIRONMENT).address
    bodies = [
        f'{{"inputs": [{{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [{n}, 2]}}]}}'
        for n in range(20)
    ]
    with Load(address, MODEL, bodies, rows=2) as load:
        time.sleep(1.0)
        assert deploy(client, version).state == deployment_pb2.DEPLOYMENT_STATE_LIVE
        time.sleep(1.0)
    assert load.tally.failures == []
    assert set(load.tally.answered) == {"1", "3"}
    assert load.tally.total > 200


def test_events_are_the_same_live_and_afterwards(suite: Suite) -> None:
    with suite.client() as client:
        order = client.builds.create(
            "tests/e2e/sources/tiny", model="events", params={"steps": 20, "pause": 0.02}
        )
        live = [event.SerializeToString() for event in client.builds.follow(order.name)]
        afterwards = [event.SerializeToString() for event in client.builds.logs(order.name)]
        assert live == afterwards
        lines = [e.log.text for e in client.builds.logs(order.name) if e.HasField("log")]
        assert "training" in lines
        assert "a warning" in lines
        points = [e.metric for e in client.builds.logs(order.name) if e.HasField("metric")]
        assert [point.step for point in points if point.key == "score"] == list(range(20))
