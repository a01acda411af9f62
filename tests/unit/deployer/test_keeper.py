"""An agent's keeper and its children on a machine whose disk is full: nothing else may end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.common.names import DeploymentName
from services.deployer.agent import keeper
from services.deployer.agent.child import Child
from services.deployer.agent.data_plane import DataPlane, VariantKey
from services.deployer.agent.preparing import PreparationError, Preparer
from services.deployer.domain import AssignedVariant, Assignment, Failure, Report, VariantState

NAME = DeploymentName("p", "production", "churn")
VARIANT = AssignedVariant(1, "projects/p/models/churn/versions/1", "a", 0, "")


class FullDisk(Preparer):
    """Finds no room, the first time."""

    def __init__(self) -> None:
        self.asked = 0

    async def prepare(self, name: DeploymentName, assigned: AssignedVariant) -> None:  # type: ignore[override]
        self.asked += 1
        if self.asked == 1:
            raise OSError(errno.ENOSPC, "no space left on device")
        raise PreparationError(Failure("FETCH_FAILED", "nothing to fetch"))


class FullDataPlane(DataPlane):
    """Cannot write what Envoy is to read, the first time."""

    is_full = True

    async def open_environment(
        self, name: str, *, port: int, host: str = "127.0.0.1", model: str = ""
    ) -> None:
        if self.is_full:
            self.is_full = False
            raise OSError(errno.ENOSPC, "no space left on device")


class SlowFetch(Preparer):
    """Never has what it is asked for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def prepare(self, name: DeploymentName, assigned: AssignedVariant) -> None:  # type: ignore[override]
        self.asked.set()
        await asyncio.Event().wait()


class EmptyDataPlane(FullDataPlane):
    """Runs nothing."""

    is_full = False

    async def set_weights(self, environment: str, model: str, weights: Mapping[int, int]) -> None:
        """Have nothing to share."""

    async def remove(self, key: VariantKey, *, keep_model: bool = False) -> None:
        """Have nothing to remove."""


async def test_a_full_disk_ends_no_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "RETRY_SECONDS", 0.01)
    told: asyncio.Queue[Report] = asyncio.Queue()
    kept = keeper.DeploymentKeeper(
        NAME,
        port=1,
        data_plane=FullDataPlane(tmp_path),
        preparer=FullDisk(),
        limits=keeper.Limits(1.0, 1.0),
        tell=told.put_nowait,
    )
    running = asyncio.create_task(kept.run())
    kept.assign(Assignment(1, (VARIANT,)))
    async with asyncio.timeout(10):
        report = await told.get()
        while not (found := report.variant(1)) or found.state is not VariantState.FAILED:
            report = await told.get()
    assert found.failure == Failure("FETCH_FAILED", "nothing to fetch")
    assert not report.weights_applied
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_given_up_while_it_starts_is_taken_down_and_forgotten(
    tmp_path: Path,
) -> None:
    told: asyncio.Queue[Report] = asyncio.Queue()
    fetch = SlowFetch()
    kept = keeper.DeploymentKeeper(
        NAME,
        port=1,
        data_plane=EmptyDataPlane(tmp_path),
        preparer=fetch,
        limits=keeper.Limits(1.0, 1.0),
        tell=told.put_nowait,
    )
    running = asyncio.create_task(kept.run())
    kept.assign(Assignment(1, (VARIANT,)))
    async with asyncio.timeout(10):
        await fetch.asked.wait()
        kept.assign(Assignment(2))
        while (report := await told.get()).generation < 2 or report.variant(1):
            pass
        assert not running.done()
        kept.assign(Assignment())  # nobody knows the deployment any more
        await running
    assert told.qsize() < 10


async def test_a_log_that_cannot_be_written_ends_no_child(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "print('x' * 200_000); print('last words')"]
    log = Path("/dev/full")
    child = await Child.start(program, folder=tmp_path, log=log, environment={})
    assert await child.wait() == 0
    assert child.tail(1) == ["last words"]


async def test_what_a_child_detached_holds_up_neither_its_end_nor_ours(tmp_path: Path) -> None:
    detached = "Popen(['sleep', '60'], start_new_session=True)"
    program = [sys.executable, "-c", f"from subprocess import *; print({detached}.pid)"]
    child = await Child.start(program, folder=tmp_path, log=tmp_path / "log", environment={})
    async with asyncio.timeout(30):
        assert await child.wait() == 0
    os.kill(int(child.tail(1)[0]), signal.SIGKILL)


async def test_a_stop_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    program = [sys.executable, "-c", f"{deaf}; time.sleep(600)"]
    child = await Child.start(program, folder=tmp_path, log=tmp_path / "log", environment={})
    async with asyncio.timeout(30):
        while not child.tail(1):  # noqa: ASYNC110 - nothing tells of a line
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(child.stop(600))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        assert await child.wait() < 0
