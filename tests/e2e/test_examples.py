"""The projects in examples/: built, tested, registered, deployed and called, each by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from modelyard.builder.v1 import build_pb2
from modelyard.deployer.v1 import deployment_pb2

from tests.e2e.suite import EmbeddedSuite

EXAMPLES = Path(__file__).parents[2] / "examples"
ENVIRONMENT = "examples"
BUILD_SECONDS = 300
"""A first build downloads its packages."""


def _slow(*case: Any) -> Any:
    return pytest.param(*case, marks=pytest.mark.slow, id=case[0])


@pytest.mark.parametrize(
    ("example", "format_", "metric", "outputs"),
    [
        pytest.param(
            *("safetensors", "model.safetensors", ("accuracy", 0.9)),
            {"grower": "BYTES", "chances": "FP64"},
            id="safetensors",
        ),
        _slow("xgboost", "model.ubj", ("r2", 0.3), {"progression": "FP32"}),
        _slow("onnx", "model.onnx", ("accuracy", 0.9), {"digit": "INT64", "probabilities": "FP32"}),
        _slow(
            *("breast-cancer", "state.pkl", ("accuracy", 0.9)),
            {"label": "INT64", "probability": "FP64"},
        ),
    ],
)
def test_an_example_goes_live(
    embedded: EmbeddedSuite,
    example: str,
    format_: str,
    metric: tuple[str, float],
    outputs: dict[str, str],
) -> None:
    with embedded.client() as client:
        ordered = client.builds.create(EXAMPLES / example, model=example)
        built = client.builds.wait(ordered.name, timeout=BUILD_SECONDS)
        assert built.state == build_pb2.BUILD_STATE_SUCCEEDED, built
        version = client.versions.get(built.version)
        assert version.tests_passed
        assert version.license.lower() == "apache-2.0"
        assert version.metrics[metric[0]] > metric[1]
        files = {file.path for file in client.artifacts.files(version.artifact)}
        assert f"model/{format_}" in files
        schema = client.versions.schema(version.name) or {}
        assert {tensor["name"]: tensor["datatype"] for tensor in schema["outputs"]} == outputs

        if ENVIRONMENT not in {e.name.rpartition("/")[2] for e in client.environments.list()}:
            client.environments.create(ENVIRONMENT)
        client.deployments.deploy(version.name, environment=ENVIRONMENT)
        live = client.deployments.wait(example, environment=ENVIRONMENT, timeout=180)
        assert live.state == deployment_pb2.DEPLOYMENT_STATE_LIVE, live
        asked = json.loads(client.artifacts.read(version.artifact, "example.json"))
        answer = embedded.predict(ENVIRONMENT, example, asked)
        assert {tensor["name"] for tensor in answer["outputs"]} == set(outputs)
        client.deployments.stop(example, environment=ENVIRONMENT)
