"""One trace of a deploy, from the command line to the agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.suite import EmbeddedSuite, build, until
from tests.servers.otlp import OtlpSink

MODELYARD = str(Path(sys.executable).with_name("modelyard"))
SERVICES = {"modelyard-cli", "modelyard-suite", "modelyard-agent"}
METHODS = {
    "/modelyard.deployer.v1.DeploymentService/DeployVersion",
    "/modelyard.metadata.v1.ModelService/ResolveVersion",
    "/modelyard.artifact.v1.ArtifactService/ReadFiles",
}


@pytest.fixture
def traced(tmp_path: Path, otlp_sink: OtlpSink) -> Iterator[EmbeddedSuite]:
    """A suite that sends its spans to the sink."""
    suite = EmbeddedSuite(tmp_path, environment={"MODELYARD_OTLP_ENDPOINT": otlp_sink.endpoint})
    suite.start()
    yield suite
    suite.stop()


def test_a_deploy_is_one_trace(traced: EmbeddedSuite, otlp_sink: OtlpSink) -> None:
    with traced.client() as client:
        version = build(client, "traced").version
        client.environments.create("traced")
    environment = {
        **os.environ,
        "MODELYARD_OTLP_ENDPOINT": otlp_sink.endpoint,
        "MODELYARD_SERVER": traced.address,
        "MODELYARD_TOKEN": traced.token,
    }
    command = [MODELYARD, "deploy", version, "--env", "traced"]
    subprocess.run(command, env=environment, check=True, timeout=120)

    def one_trace() -> bool:
        roots = [s for s in otlp_sink.spans if s.service == "modelyard-cli"]
        if not roots:
            return False
        spans = [s for s in otlp_sink.spans if s.trace_id == roots[0].trace_id]
        return {s.name for s in spans} >= METHODS and {s.service for s in spans} >= SERVICES

    until(one_trace, seconds=30, what=f"one trace with {METHODS} and {SERVICES}")
