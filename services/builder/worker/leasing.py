"""The worker's life: take a build, run it, take the next, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import duration_pb2
from modelyard._transport.channel import Line, open_channel
from modelyard._transport.config import ConnectionSettings
from modelyard.builder.v1 import build_pb2, worker_service_pb2

from services.builder.worker.attempt import Attempt, Cut, lease_seconds
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.capacity import Capacity
from services.builder.worker.folders import WorkFolders
from services.builder.worker.limits import Limits
from services.builder.worker.processes import Cage
from services.builder.worker.reporting import EventReporter
from services.builder.worker.settings import WorkerSettings
from services.builder.worker.spooling import RunSpool
from services.builder.worker.work import Credential, Work
from services.common.environments.making import Environments
from services.common.environments.removal import remove_old
from services.common.errors import Reason, ServiceError
from services.common.names import BuildName
from services.common.service import SuiteSettings

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
HAND_BACK_SECONDS = 4.0
"""How long it may take to hand builds back."""
ROOM_SECONDS = 2.0
"""How long it takes at most until room that a build left is told."""
REFUSED = {Reason.INVALID_CREDENTIAL, Reason.RIGHT_MISSING, Reason.INVALID_FIELD}
"""What no later try would change."""


def new_worker_id(name: str) -> str:
    """Return an id that no other start of any worker has."""
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower())[:40]
    return f"{plain}-{secrets.token_hex(6)}"


@dataclass(slots=True)
class Worker:
    """Runs builds, so many at a time, in one process: at rest it costs no more than one would."""

    settings: WorkerSettings
    suite: SuiteSettings
    builder: BuilderClient
    environments: Environments
    folders: WorkFolders
    cage: Cage
    capacity: Capacity
    id: str
    attempts: set[Attempt] = field(default_factory=set)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a build ended."""

    @staticmethod
    def stop_seconds(settings: WorkerSettings) -> float:
        """Return how long `run` may go on after it was told to stop."""
        return RETRY_SECONDS + settings.grace_seconds + HAND_BACK_SECONDS

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then let builds end, or hand them back after the grace."""
        asking = asyncio.create_task(self._take_builds(stop))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, asking], return_when=asyncio.FIRST_COMPLETED)
        stop.set()  # also when the asking broke, which ends the worker
        logger.info("draining", extra={"builds": len(self.attempts)})
        await asyncio.wait([asking], timeout=RETRY_SECONDS)
        await self._until_idle(self.settings.grace_seconds)
        for attempt in self.attempts:
            attempt.cut(Cut.DRAINED)
        await self._until_idle(HAND_BACK_SECONDS)
        for task in (asking, *self.running):
            task.cancel()
        await asyncio.gather(asking, *self.running, return_exceptions=True)
        if not asking.cancelled():
            asking.result()

    async def _until_idle(self, seconds: float) -> None:
        if self.running:
            await asyncio.wait(self.running, timeout=seconds)

    async def _take_builds(self, stop: asyncio.Event) -> None:
        """Ask for builds while there is room for one, until told to stop."""
        while not stop.is_set():
            self.freed.clear()
            if len(self.running) >= self.settings.concurrency or not self.capacity.has_room:
                await _first(stop.wait(), self.freed.wait())
                continue
            answer = await self._lease(stop)
            if answer is not None and answer.HasField("lease"):
                limits = self.capacity.give(answer.build.spec.resources)
                task = asyncio.create_task(self._run(answer, limits))
                self.running.add(task)
                task.add_done_callback(partial(self._ended, limits))

    def _ended(self, limits: Limits, task: asyncio.Task[None]) -> None:
        self.capacity.take_back(limits)
        self.running.discard(task)
        self.freed.set()

    async def _run(self, answer: worker_service_pb2.LeaseBuildResponse, limits: Limits) -> None:
        try:
            await self._work(answer, limits)
        except Exception:  # one build must not end the worker
            logger.exception("attempt broke off", extra={"build": answer.build.name})

    async def _lease(self, stop: asyncio.Event) -> worker_service_pb2.LeaseBuildResponse | None:
        """Wait for a build, or until told to stop."""
        asking = asyncio.create_task(self.builder.lease(self._request()))
        await _first(stop.wait(), asking)
        if not asking.done():
            asking.cancel()
        try:
            return await asking
        except asyncio.CancelledError:
            return None
        except (ServiceError, OSError) as error:
            if isinstance(error, ServiceError) and error.reason in REFUSED:
                raise
            logger.warning("no answer to a lease", extra={"error": str(error)})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await stop.wait()
            return None

    def _request(self) -> worker_service_pb2.LeaseBuildRequest:
        # While builds run there may soon be more room than is told now. An ask is not taken back
        # for that: it could have been answered, and the build would wait for its lease to end.
        longest = self.settings.wait_seconds
        wait = min(longest, ROOM_SECONDS) if self.running else longest
        return worker_service_pb2.LeaseBuildRequest(
            worker=self.id,
            wait=duration_pb2.Duration(seconds=int(wait)),
            pool=self.settings.pool,
            max_builds=self.settings.concurrency,
            capacity=self.capacity.free,
            total=self.capacity.total,
        )

    async def _work(self, answer: worker_service_pb2.LeaseBuildResponse, limits: Limits) -> None:
        logger.info("build leased", extra={"build": answer.build.name})
        line = Line(self._connection(answer.build), open_channel)
        environments = self.environments.within(_project(answer.build))
        try:
            with self.folders.build(f"{answer.build.name}-{answer.lease.fence}") as folder:
                credential = Credential(answer.delegation)
                reporter = EventReporter(self.builder, answer.lease)
                spool = RunSpool(
                    folder / "spool",
                    line,
                    run=answer.build.run,
                    writer=f"attempt-{answer.lease.attempt}",
                    credential=lambda: credential.value,
                    reporter=reporter,
                )
                work = Work(
                    lease=answer.lease,
                    build=answer.build,
                    folder=folder,
                    credential=credential,
                    reporter=reporter,
                    spool=spool,
                    cage=self.cage,
                    limits=limits,
                    environments=environments,
                    suite=self.suite,
                    settings=self.settings,
                )
                await self._attempt(work, seconds=lease_seconds(answer))
        finally:
            environments.close()
            await asyncio.to_thread(self._tidy, line)

    def _tidy(self, line: Line[grpc.Channel]) -> None:
        """Close what a build used, and remove environments that nobody used for long."""
        line.close()
        remove_old(
            self.environments.folder,
            max_bytes=self.settings.environments_max_bytes,
            max_age=self.settings.environments_max_days * 24 * 3_600.0,
        )

    async def _attempt(self, work: Work, *, seconds: float) -> None:
        attempt = Attempt(work, self.builder, lease_seconds=seconds)
        self.attempts.add(attempt)
        try:
            await attempt.run()
        finally:
            self.attempts.discard(attempt)

    def _connection(self, build: build_pb2.Build) -> ConnectionSettings:
        certificates = self.suite.root_certificates
        return ConnectionSettings(
            server=self.suite.suite_address,
            project=_project(build),
            root_certificates=Path(certificates).read_bytes() if certificates else None,
            certificates_file=Path(certificates) if certificates else None,
        )


def _project(build: build_pb2.Build) -> str:
    return str(BuildName.parse(build.name).project)


async def _first(*awaitables: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
    """Wait for the first of several; what was not a task before is cancelled then."""
    own = [asyncio.ensure_future(a) for a in awaitables if not isinstance(a, asyncio.Task)]
    tasks = [a for a in awaitables if isinstance(a, asyncio.Task)]
    try:
        await asyncio.wait([*own, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in own:
            task.cancel()
