"""A deployment whose agent meets refusals wherever it asks: it only takes longer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.suite.children import Layout
from services.suite.start import free_port
from tests.e2e.agent.conftest import Site
from tests.faults.site import ENVIRONMENT, roll_out, versions
from tests.servers.busy import serving_busy

ONCE_MORE = 6
"""So often a call is refused that gRPC itself makes up to five times."""
ASKED = {"WatchAssignments", "ReportStatus", "CreateGrant", "ListFiles", "ReadFiles"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Running services, without an agent."""
    site = Site(Layout(tmp_path / "site", free_port(), free_port()))
    site.layout.prepare()
    site.start("services")
    yield site
    site.stop()


@pytest.mark.slow
async def test_a_deployment_survives_refusals(site: Site, tmp_path: Path) -> None:
    def deploy() -> None:
        with site.client() as client:
            client.environments.create(ENVIRONMENT)
            (version,) = versions(site, tmp_path, "churn", {})
            site.start("agent")
            roll_out(client, "churn", version)

    times = {"ListFiles": ONCE_MORE}
    async with serving_busy(site.layout.address, first=2, of=times) as (address, front):
        site.settings["MODELYARD_SUITE_ADDRESS"] = address  # the agent's, which starts now
        await asyncio.to_thread(deploy)
        assert front.refused.keys() >= ASKED
        assert front.refused["ListFiles"] == ONCE_MORE
