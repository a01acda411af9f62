"""The worker's life: take a build, run it, take the next, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from modelyard import _channel
from modelyard._config import ConnectionSettings
from modelyard.builder.v1 import build_pb2, worker_service_pb2

from services.builder.worker.attempt import Attempt, Cut, lease_seconds
from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.folders import WorkFolders
from services.builder.worker.processes import Cage
from services.builder.worker.reporting import EventReporter
from services.builder.worker.settings import WorkerSettings
from services.builder.worker.spooling import RunSpool
from services.builder.worker.work import Credential, Work
from services.common.environment_removal import remove_old
from services.common.environments import Environments
from services.common.errors import ServiceError
from services.common.names import BuildName
from services.common.service import SuiteSettings

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


def new_worker_id(name: str) -> str:
    """Return an id that no other start of any worker has."""
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower())[:40]
    return f"{plain}-{secrets.token_hex(6)}"


@dataclass(slots=True)
class Worker:
    """Runs builds, so many at a time."""

    settings: WorkerSettings
    suite: SuiteSettings
    builder: BuilderClient
    environments: Environments
    folders: WorkFolders
    cage: Cage
    id: str
    attempts: set[Attempt] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then let builds end, or hand them back after the grace."""
        slots = [asyncio.create_task(self._slot(stop)) for _ in range(self.settings.concurrency)]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *slots], return_when=asyncio.FIRST_COMPLETED)
        stop.set()  # also when a slot broke, which ends the worker
        logger.info("draining", extra={"builds": len(self.attempts)})
        _, unfinished = await asyncio.wait(slots, timeout=self.settings.grace_seconds)
        for attempt in self.attempts:
            attempt.cut(Cut.DRAINED)
        if unfinished:
            await asyncio.wait(unfinished, timeout=RETRY_SECONDS * 4)
        for slot in slots:
            slot.cancel()
        outcomes = await asyncio.gather(*slots, return_exceptions=True)
        broken = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if broken:
            raise broken[0]

    async def _slot(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            answer = await self._lease(stop)
            if answer is not None and answer.HasField("lease"):
                try:
                    await self._work(answer)
                except Exception:  # one build must not end the worker
                    logger.exception("attempt broke off", extra={"build": answer.build.name})

    async def _lease(self, stop: asyncio.Event) -> worker_service_pb2.LeaseBuildResponse | None:
        """Wait for a build, or until told to stop."""
        asking = asyncio.create_task(self.builder.lease(self.id, wait=self.settings.wait_seconds))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({asking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not asking.done():
            asking.cancel()
        try:
            return await asking
        except asyncio.CancelledError:
            return None
        except (ServiceError, OSError) as error:
            logger.warning("no answer to a lease", extra={"error": str(error)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)
            return None

    async def _work(self, answer: worker_service_pb2.LeaseBuildResponse) -> None:
        logger.info("build leased", extra={"build": answer.build.name})
        channel = _channel.open_channel(self._connection(answer.build))
        environments = self.environments.within(_project(answer.build))
        try:
            with self.folders.build(f"{answer.build.name}-{answer.lease.fence}") as folder:
                credential = Credential(answer.delegation)
                reporter = EventReporter(self.builder, answer.lease)
                spool = RunSpool(
                    folder / "spool",
                    channel,
                    run=answer.build.run,
                    writer=f"attempt-{answer.lease.attempt}",
                    credential=lambda: credential.value,
                    reporter=reporter,
                )
                spool.note_code(_code_facts(answer.build))
                work = Work(
                    lease=answer.lease,
                    build=answer.build,
                    folder=folder,
                    credential=credential,
                    reporter=reporter,
                    spool=spool,
                    cage=self.cage,
                    environments=environments,
                    suite=self.suite,
                )
                await self._attempt(work, seconds=lease_seconds(answer))
        finally:
            environments.close()
            await asyncio.to_thread(self._tidy, channel)

    def _tidy(self, channel: grpc.Channel) -> None:
        """Close what a build used, and remove environments that nobody used for long."""
        channel.close()
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
        )


def _project(build: build_pb2.Build) -> str:
    return str(BuildName.parse(build.name).project)


def _code_facts(build: build_pb2.Build) -> dict[str, object]:
    origin = build.spec.origin
    return {
        "repository": origin.repository,
        "commit": origin.commit,
        "branch": origin.branch,
        "dirty": origin.dirty,
        "diff": origin.diff,
        "snapshot": build.spec.source,
        "entry_point": build.spec.entry or "model.py",
    }
