"""The target agent's composition root: `python -m services.deployer.agent`."""

from __future__ import annotations

import asyncio
import contextlib

from services.common import logs, telemetry
from services.common.environments.making import Environments
from services.common.own_token import OwnToken
from services.common.processes.leaving import LEAVE_SECONDS, leave_within, on_stop
from services.common.safe_start import check_folder
from services.common.service import SuiteSettings, connect
from services.common.settings import exiting_when_bad, load_or_exit
from services.deployer.agent.agent import Agent
from services.deployer.agent.control_plane import ControlPlane
from services.deployer.agent.data_plane import STOP_SECONDS, DataPlane
from services.deployer.agent.keeper import Limits
from services.deployer.agent.preparing import Preparer
from services.deployer.agent.settings import PREFIX, AgentSettings
from services.deployer.agent.state import KnownAssignments, Ports


async def run(settings: AgentSettings, suite: SuiteSettings) -> None:
    """Work until SIGTERM or SIGINT; everything that was started ends with it."""
    folder = settings.folder
    with exiting_when_bad():
        check_folder(folder)
        token = OwnToken(settings.token_file)
    bundles = folder / "bundles"
    await asyncio.to_thread(bundles.mkdir, mode=0o700, parents=True, exist_ok=True)
    with exiting_when_bad():
        peer = connect(suite)
    control_plane = ControlPlane(
        peer,
        own_token=token,
        controller=settings.id,
        environment=settings.environment,
    )
    preparer = Preparer(
        bundles,
        control_plane=control_plane,
        server=suite.suite_address,
        root_certificates=suite.root_certificates,
        environments=Environments(settings.environments_folder),
    )
    await asyncio.to_thread(preparer.sweep)
    async with DataPlane(folder / "data-plane") as data_plane:
        agent = Agent(
            control_plane=control_plane,
            data_plane=data_plane,
            preparer=preparer,
            known=KnownAssignments(folder / "assignments.json"),
            ports=Ports(folder / "ports.json", base_port=settings.base_port),
            limits=Limits(ready=settings.ready_seconds, drain=settings.drain_seconds),
        )
        await _until_stopped(agent)
    leave_within(LEAVE_SECONDS)
    await peer.close()


async def _until_stopped(agent: Agent) -> None:
    working = asyncio.create_task(agent.run())
    on_stop(working.cancel, within=STOP_SECONDS + LEAVE_SECONDS)
    with contextlib.suppress(asyncio.CancelledError):
        await working


def main() -> None:
    """Run the agent alone."""
    settings = load_or_exit(AgentSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    logs.configure(suite.log_level)
    traces = telemetry.configure(
        "modelyard-agent",
        otlp_endpoint=suite.otlp_endpoint or None,
        sample_ratio=suite.trace_ratio,
    )
    try:
        asyncio.run(run(settings, suite))
    finally:
        traces.close()


if __name__ == "__main__":
    main()
