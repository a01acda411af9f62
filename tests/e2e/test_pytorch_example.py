"""The PyTorch project in examples/, built by the suite and logged by a script, to live models."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv
from modelyard import Client
from modelyard.builder.v1 import build_pb2
from modelyard.deployer.v1 import deployment_pb2
from modelyard.metadata.v1 import version_pb2

from tests.e2e.suite import EmbeddedSuite

# An environment of its own, with hundreds of megabytes of torch.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "pytorch"
ENVIRONMENT = "pytorch"
BUILD_SECONDS = 600


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSuite]:
    """A suite whose installers find what this machine's pip finds, such as a CPU build of torch."""
    data = tmp_path_factory.mktemp("pytorch")
    suite = EmbeddedSuite(data, {"UV_FIND_LINKS": find_links()})
    suite.start()
    yield suite
    suite.stop()


def find_links() -> str:
    """Return the places beside its index where pip looks for packages, as uv wants them."""
    pip = shutil.which("pip")
    said = (
        subprocess.run([pip, "config", "list"], capture_output=True, text=True, check=True).stdout
        if pip
        else ""
    )
    pairs = (line.split("=", 1) for line in said.splitlines())
    found = [ast.literal_eval(text) for key, text in pairs if key.endswith(".find-links")]
    return ",".join(dict.fromkeys(" ".join(found).split()))


def test_a_build_goes_live(suite: EmbeddedSuite) -> None:
    with suite.client() as client:
        ordered = client.builds.create(EXAMPLE, model="digits")
        built = client.builds.wait(ordered.name, timeout=BUILD_SECONDS)
        assert built.state == build_pb2.BUILD_STATE_SUCCEEDED, built
        version = client.versions.get(built.version)
        assert version.tests_passed
        assert version.metrics["accuracy"] > 0.9
        files = {file.path for file in client.artifacts.files(version.artifact)}
        assert "model/model.safetensors" in files
        assert not any(path.endswith((".pkl", ".pt", ".pth")) for path in files)
        outputs = _answers(suite, client, version)
    assert {name: output["datatype"] for name, output in outputs.items()} == {
        "digit": "INT64",
        "chances": "FP32",
    }
    assert sum(outputs["chances"]["data"]) == pytest.approx(1, abs=1e-4)


def test_a_module_that_a_script_logged_goes_live_by_its_own_loader(
    suite: EmbeddedSuite, tmp_path: Path
) -> None:
    environment = {
        "MODELYARD_SERVER": suite.address,
        "MODELYARD_TOKEN": suite.token,
        "MODELYARD_SPOOL_DIR": str(tmp_path / "spool"),
        "UV_FIND_LINKS": suite.environment["UV_FIND_LINKS"],
    }
    command = [uv.find_uv_bin(), "run", "--quiet", "--no-project"]
    command += ["--with-requirements", str(EXAMPLE / "requirements.txt")]
    command += ["--with", str(ROOT / "clients" / "python"), "python", str(EXAMPLE / "train.py")]
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    _, name = done.stdout.split()
    with suite.client() as client:
        version = client.versions.get(name)
        facts = json.loads(client.artifacts.read(version.artifact, "modelyard.json"))
        assert (facts["loader"], facts["entry"]) == ("torch", "network:Digits")
        (output,) = _answers(suite, client, version).values()
    assert (output["datatype"], output["shape"]) == ("FP32", [2, 10])
    assert max(output["data"]) <= 0  # log-probabilities


def _answers(
    suite: EmbeddedSuite, client: Client, version: version_pb2.Version
) -> dict[str, dict[str, Any]]:
    """Put a version live and ask it its example; return the outputs by name."""
    model = version.name.split("/")[3]
    if not any(e.name.endswith(f"/{ENVIRONMENT}") for e in client.environments.list()):
        client.environments.create(ENVIRONMENT)
    client.deployments.deploy(version.name, environment=ENVIRONMENT)
    live = client.deployments.wait(model, environment=ENVIRONMENT, timeout=300)
    assert live.state == deployment_pb2.DEPLOYMENT_STATE_LIVE, live
    asked = json.loads(client.artifacts.read(version.artifact, "example.json"))
    outputs = suite.predict(ENVIRONMENT, model, asked)["outputs"]
    client.deployments.stop(model, environment=ENVIRONMENT)
    return {output["name"]: output for output in outputs}
