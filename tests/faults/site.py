"""A running deployer and agent for the deployment tests, and what they do over and over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard import Client
from modelyard.deployer.v1 import deployment_pb2

from services.suite.children import Layout
from services.suite.start import free_port
from tests.e2e.agent.conftest import Site

LIVE = deployment_pb2.DEPLOYMENT_STATE_LIVE
FAILED = deployment_pb2.DEPLOYMENT_STATE_FAILED
ENVIRONMENT = "production"
PATIENCE = 90.0


@contextmanager
def running_site(folder: Path, **settings: str) -> Iterator[Site]:
    """Run the services and an agent with one environment."""
    site = Site(Layout(folder, free_port(), free_port()), settings)
    site.layout.prepare()
    try:
        site.start("services")
        site.start("agent")
        with site.client() as client:
            client.environments.create(ENVIRONMENT)
        yield site
    finally:
        site.stop()


def address_of(site: Site) -> str:
    """Return where predictions are served."""
    return f"127.0.0.1:{site.layout.inference_port}"


def versions(site: Site, folder: Path, model: str, *attributes: dict[str, Any]) -> list[str]:
    """Register versions 1, 2, …, each with its attributes; version N multiplies by N."""
    return [
        site.register(folder, model, number, **given).name
        for number, given in enumerate(attributes, start=1)
    ]


def roll_out(
    client: Client, model: str, version: str, *, state: int = LIVE, **how: Any
) -> deployment_pb2.Deployment:
    """Deploy a version and wait for how it ends."""
    client.deployments.deploy(version, environment=ENVIRONMENT, **how)
    ended = client.deployments.wait(model, environment=ENVIRONMENT, timeout=PATIENCE)
    assert ended.state == state, ended
    return ended
