"""One attempt from its lease to its end, and all the ways it can be cut short."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import StrEnum
from typing import Any

from modelyard.builder.v1 import build_pb2, worker_service_pb2
from modelyard.common.v1 import failure_pb2
from modelyard.errors import ModelyardError

from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.phases import PHASES, run_phase
from services.builder.worker.work import PhaseFailedError, Work
from services.common.errors import Reason, ServiceError

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5

_REASONS = {
    build_pb2.PHASE_KIND_PROVISION: "SOURCE_INVALID",
    build_pb2.PHASE_KIND_ENVIRONMENT: "ENVIRONMENT_FAILED",
    build_pb2.PHASE_KIND_TRAIN: "TRAIN_FAILED",
    build_pb2.PHASE_KIND_TEST: "TEST_FAILED",
    build_pb2.PHASE_KIND_PACKAGE: "PACKAGE_FAILED",
    build_pb2.PHASE_KIND_REGISTER: "REGISTER_FAILED",
}


class Cut(StrEnum):
    """Why an attempt was cut short."""

    LOST = "LOST"
    """Another has the build: nothing more may be said."""
    CANCELLED = "CANCELLED"
    """The build is CANCELLING."""
    DRAINED = "DRAINED"
    """This worker is told to stop: the build is handed back."""


class Attempt:
    """Takes a build through its phases."""

    def __init__(self, work: Work, builder: BuilderClient, *, lease_seconds: float) -> None:
        self._work = work
        self._builder = builder
        self._beat_seconds = lease_seconds / 3
        self._cut: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()

    def cut(self, why: Cut) -> None:
        """Cut it short; the first reason counts."""
        if why is Cut.LOST:
            self._lost.set()
        if not self._cut.done():
            self._cut.set_result(why)

    async def run(self) -> None:
        """Run it to its end and say so; return when nothing of it is left."""
        helpers = [
            asyncio.create_task(work)
            for work in (self._beat(), self._report(), self._work.spool.run())
        ]
        phases = asyncio.create_task(self._phases())
        try:
            waiting: list[asyncio.Future[Any]] = [phases, self._cut]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            why = self._cut.result() if self._cut.done() and not phases.done() else None
            await _cancel(phases)
            await self._end(why, await self._outcome(phases))
        finally:
            for task in (phases, *helpers):
                await _cancel(task)

    async def _outcome(self, phases: asyncio.Task[None]) -> BaseException | None:
        return None if phases.cancelled() else phases.exception()

    async def _end(self, why: Cut | None, error: BaseException | None) -> None:
        """Tell the builder how it ended, unless that is not for us to say."""
        if why is Cut.LOST or (isinstance(error, ServiceError) and _is_lost(error)):
            logger.warning("lease lost", extra={"build": self._work.build.name})
            return
        if why is None and error is None:
            return
        ending = asyncio.create_task(self._tell(why, error))
        lost = asyncio.create_task(self._lost.wait())
        await asyncio.wait([ending, lost], return_when=asyncio.FIRST_COMPLETED)
        lost.cancel()
        await _cancel(ending)
        problem = None if ending.cancelled() else ending.exception()
        if problem is not None:
            logger.warning("attempt's end not told", exc_info=problem)

    async def _tell(self, why: Cut | None, error: BaseException | None) -> None:
        await self._work.reporter.flush()
        failure = None if why is Cut.CANCELLED else self._failure(why, error)
        await self._builder.end_attempt(self._work.lease, failure)

    def _failure(self, why: Cut | None, error: BaseException | None) -> failure_pb2.Failure:
        if why is Cut.DRAINED:
            return failure_pb2.Failure(reason="WORKER_STOPPED", message="its worker was stopped")
        if isinstance(error, PhaseFailedError):
            return error.failure
        if isinstance(error, ModelyardError):
            logger.warning("attempt given back", extra={"reason": error.reason})
            message = f"a service of the suite refused it: {error.reason}"
            return failure_pb2.Failure(reason="WORKER_LOST", message=message)
        logger.error("attempt failed", exc_info=error)
        reason = _REASONS.get(self._work.reporter.phase, "TRAIN_FAILED")
        return failure_pb2.Failure(reason=reason, message="an error of the worker itself")

    async def _phases(self) -> None:
        reporter, builder, lease = self._work.reporter, self._builder, self._work.lease
        for kind in PHASES:
            await builder.report_phase(lease, kind, build_pb2.PHASE_STATE_RUNNING)
            reporter.phase = kind
            try:
                await run_phase(kind, self._work, builder)
            except PhaseFailedError as error:
                self._work.say(f"{error.failure.reason}: {error.failure.message}")
                await reporter.flush()
                failed = build_pb2.PHASE_STATE_FAILED
                await builder.report_phase(lease, kind, failed, error.failure, self._tests(kind))
                raise
            await reporter.flush()
            if kind != build_pb2.PHASE_KIND_REGISTER:  # which the registration itself ends
                succeeded = build_pb2.PHASE_STATE_SUCCEEDED
                await builder.report_phase(lease, kind, succeeded, tests=self._tests(kind))

    def _tests(self, kind: build_pb2.PhaseKind.ValueType) -> build_pb2.TestCounts | None:
        return self._work.test_counts if kind == build_pb2.PHASE_KIND_TEST else None

    async def _beat(self) -> None:
        """Extend the lease until cancelled; learn that it is lost or the build cancelled."""
        while True:
            try:
                answer = await self._builder.extend(self._work.lease, wait=self._beat_seconds)
            except ServiceError as error:
                if _is_lost(error):
                    self.cut(Cut.LOST)
                    return
                logger.warning("lease not extended", extra={"reason": error.reason.value})
                wait = max(RETRY_SECONDS, error.retry_seconds or 0.0)
                await asyncio.sleep(min(wait, self._beat_seconds))
                continue
            self._work.credential.value = answer.delegation
            if answer.cancel:  # from now on an answer comes at once
                self.cut(Cut.CANCELLED)
                await asyncio.sleep(self._beat_seconds)

    async def _report(self) -> None:
        """Send events until cancelled; learn that the lease is lost."""
        try:
            await self._work.reporter.run()
        except ServiceError as error:
            logger.warning("events refused", extra={"reason": error.reason.value})
            self.cut(Cut.LOST)


def lease_seconds(answer: worker_service_pb2.LeaseBuildResponse) -> float:
    """Return how long a lease lasts."""
    return answer.duration.ToTimedelta().total_seconds()


def _is_lost(error: ServiceError) -> bool:
    return error.reason is Reason.LEASE_LOST


async def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it is gone; its error, if any, stays in it."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait({task})
