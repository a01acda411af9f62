"""A plain training script outside of the builder: logged, registered, deployed, asked."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest
from modelyard.deployer.v1 import deployment_pb2
from modelyard.metadata.v1 import run_pb2, version_pb2

from tests.e2e.suite import EmbeddedSuite

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "sklearn-script" / "train.py"


@pytest.mark.slow
def test_a_plain_script_registers_what_is_then_served(
    embedded: EmbeddedSuite, tmp_path: Path
) -> None:
    output = run_script(embedded, tmp_path)
    run_name, version_name = output.split()
    with embedded.client() as client:
        run = client.runs.get(run_name)
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED
        assert run.code.entry_point.endswith("train.py")
        assert any(package.name == "scikit-learn" for package in run.environment.packages)
        assert {use.role for use in run.datasets} == {"train", "test"}
        series = {metric.key: metric for metric in run.metrics}
        assert series["log_loss"].count == 60

        version = client.versions.get(version_name)
        assert version.state == version_pb2.VERSION_STATE_READY
        assert version.run == run_name
        assert version.aliases == ["candidate"]
        assert version.params["n_estimators"].int_value == 60
        assert version.metrics["f1"] == series["f1"].last
        paths = {file.path for file in client.artifacts.files(version.artifact)}
        assert paths == {
            "environment/requirements.lock",
            "example.json",
            "model/model.pkl",
            "modelyard.json",
        }

        client.environments.create("staging")
        client.deployments.deploy(version_name, environment="staging")
        live = client.deployments.wait("tumours", environment="staging", timeout=180)
        assert live.state == deployment_pb2.DEPLOYMENT_STATE_LIVE
        address = client.environments.get("staging").address
        example = client.artifacts.read(version.artifact, "example.json")
    answer = httpx.post(
        f"http://{address}/v2/models/tumours/infer",
        content=example,
        headers={"content-type": "application/json"},
    ).json()
    assert set(answer["outputs"][0]["data"]) <= {0, 1}
    assert answer["outputs"][0]["shape"] == [2]


def run_script(suite: EmbeddedSuite, folder: Path) -> str:
    """Run the example in an environment of its own, as a user does."""
    done = subprocess.run(
        [
            *("uv", "run", "--quiet", "--no-project", "--with", "scikit-learn"),
            *("--with", str(ROOT / "clients" / "python"), "python", str(SCRIPT)),
        ],
        cwd=SCRIPT.parent,
        env={
            **{key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
            "MODELYARD_SERVER": suite.address,
            "MODELYARD_TOKEN": suite.token,
            "MODELYARD_SPOOL_DIR": str(folder / "spools"),
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    assert list((folder / "spools").iterdir()) == []
    return done.stdout
