"""Clients that are not ours: TypeScript from the protos, and tritonclient."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import uv
from modelyard.deployer.v1 import deployment_pb2

from services.demo.story import STOCK_CLIENT, TRITON
from tests.e2e.suite import EmbeddedSuite, build

ROOT = Path(__file__).resolve().parents[2]
TYPESCRIPT = ROOT / "examples" / "typescript"


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def version(embedded: EmbeddedSuite) -> str:
    """A version of a model that nobody else touches."""
    with embedded.client() as client:
        return build(client, "clients", level=5.0).version


@pytest.fixture(scope="module")
def npm() -> str:
    """Install and generate the TypeScript example; return the program that runs it."""
    found = shutil.which("npm")
    assert found, "npm is needed"
    run(found, "install", "--no-package-lock", "--no-fund", cwd=TYPESCRIPT)
    run(found, "run", "generate", cwd=TYPESCRIPT)
    run(found, "run", "check", cwd=TYPESCRIPT)
    return found


def test_a_controller_in_typescript(
    embedded: EmbeddedSuite, version: str, npm: str, tmp_path: Path
) -> None:
    """It follows an environment of its own, with verified bytes and no storage key."""
    token = embedded.layout.admin_token.with_name("agent.token").read_text().strip()
    with embedded.client() as client:
        client.environments.create("edge", external=True)
        controller = subprocess.Popen(
            (npm, "run", "controller", "--", "edge", str(tmp_path)),
            cwd=TYPESCRIPT,
            env={**os.environ, "MODELYARD_SERVER": embedded.address, "MODELYARD_TOKEN": token},
            start_new_session=True,
        )
        try:
            client.deployments.deploy(version, environment="edge")
            live = client.deployments.wait("clients", environment="edge", timeout=120)
            assert live.state == deployment_pb2.DEPLOYMENT_STATE_LIVE, live
            (fetched,) = tmp_path.iterdir()
            digest = client.versions.get(version).artifact.rpartition("/")[2]
            assert fetched.name == digest
            for file in client.artifacts.files(version):
                assert (fetched / file.path).stat().st_size == file.size_bytes
            client.deployments.stop("clients", environment="edge")
            stopped = client.deployments.wait("clients", environment="edge", timeout=60)
            assert stopped.state == deployment_pb2.DEPLOYMENT_STATE_STOPPED
        finally:
            os.killpg(controller.pid, signal.SIGTERM)
            controller.wait(20)


def test_typescript_lists_versions_follows_a_build_and_reads_an_artifact(
    embedded: EmbeddedSuite, version: str, npm: str
) -> None:
    said = run(
        *(npm, "start", "--", "clients"),
        cwd=TYPESCRIPT,
        MODELYARD_SERVER=embedded.address,
        MODELYARD_TOKEN=embedded.token,
    )
    assert f"version {version} READY" in said
    assert "phase REGISTER SUCCEEDED" in said
    assert "build SUCCEEDED" in said
    with embedded.client() as client:
        for file in client.artifacts.files(version):
            assert f"file {file.path} {file.size_bytes} verified" in said


def test_tritonclient_predicts_over_http_and_grpc(embedded: EmbeddedSuite, version: str) -> None:
    with embedded.client() as client:
        client.environments.create("clients")
        client.deployments.deploy(version, environment="clients")
        settled = client.deployments.wait("clients", environment="clients", timeout=120)
        assert settled.state == deployment_pb2.DEPLOYMENT_STATE_LIVE
        address = client.environments.get("clients").address
        example = client.artifacts.read(version, "example.json").decode()
    said = run(
        *(uv.find_uv_bin(), "run", "--quiet", "--no-project", "--with", TRITON),
        *("python", str(STOCK_CLIENT), address, "clients", json.dumps(json.loads(example))),
    )
    assert "HTTP: version 1 says level = [5.0, 5.0]" in said
    assert "gRPC: version 1 says level = [5.0, 5.0]" in said
