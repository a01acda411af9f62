"""The worker's composition root: `python -m services.builder.worker`."""

from __future__ import annotations

import asyncio
import sys

from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.capacity import Capacity
from services.builder.worker.folders import WorkFolders
from services.builder.worker.leasing import Worker, new_worker_id
from services.builder.worker.processes import Cage, NoSandboxError
from services.builder.worker.settings import PREFIX, WorkerSettings
from services.common import logs
from services.common.environments.making import Environments
from services.common.errors import ServiceError
from services.common.own_token import OwnToken
from services.common.processes.leaving import LEAVE_SECONDS, leave_within, on_stop
from services.common.safe_start import check_folder
from services.common.service import SuiteSettings, connect
from services.common.settings import exiting_when_bad, load_or_exit
from services.common.telemetry import configure

NO_SANDBOX_STATUS = 3
_NO_SANDBOX = """\
modelyard: this machine has no sandbox for builds, so the worker takes none: {}
It needs user namespaces for this account, and setpriv, prlimit, taskset and mount of
util-linux. To run builds without one, with all that this account may do: set
MODELYARD_WORKER_SANDBOX=off"""


async def run(settings: WorkerSettings, suite: SuiteSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    on_stop(stop.set, within=Worker.stop_seconds(settings) + LEAVE_SECONDS)
    logs.configure(suite.log_level)
    telemetry = configure(
        "modelyard-worker",
        otlp_endpoint=suite.otlp_endpoint or None,
        sample_ratio=suite.trace_ratio,
    )
    with exiting_when_bad():
        check_folder(settings.folder)
        token = OwnToken(settings.token_file)
    cage = await _cage(settings)
    with exiting_when_bad():
        peer = connect(suite)
    worker_id = new_worker_id(settings.name)
    folders = WorkFolders(settings.folder / "work", worker_id)
    worker = Worker(
        settings=settings,
        suite=suite,
        builder=BuilderClient(peer, own_token=token.read),
        environments=Environments(settings.environments_folder),
        folders=folders,
        cage=cage,
        capacity=Capacity.of_machine(settings),
        id=worker_id,
    )
    try:
        await worker.run(stop)
        leave_within(LEAVE_SECONDS)
    finally:
        folders.close()
        await peer.close()
        telemetry.close()


async def _cage(settings: WorkerSettings) -> Cage:
    folder = settings.folder / "sandbox"
    if settings.sandbox == "off":
        return await Cage.bare(folder)
    return await Cage.sandboxed(folder, settings.sandbox_patterns)


def main() -> None:
    """Run a worker in its own process."""
    settings = load_or_exit(WorkerSettings, PREFIX)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    try:
        asyncio.run(run(settings, suite))
    except ServiceError as error:
        print(f"modelyard: {suite.suite_address} refused the worker: {error}", file=sys.stderr)
        sys.exit(1)
    except NoSandboxError as error:
        print(_NO_SANDBOX.format(error), file=sys.stderr)
        sys.exit(NO_SANDBOX_STATUS)


if __name__ == "__main__":
    main()
