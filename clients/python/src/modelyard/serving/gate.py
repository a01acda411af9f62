"""The gate: how many requests may be in hand, and what is counted of them.

What comes beyond the limit is refused at once, so that an overloaded server answers quickly
instead of slowly failing everyone.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from modelyard.serving.domain import Description, Refusal, ServingError
from modelyard.serving.jobs import Job, Outcome, Result
from modelyard.serving.metrics import Metrics
from modelyard.serving.sampling import Sampler


class Ticket:
    """A job in hand, and who waits for it."""

    __slots__ = ("_future", "_gate", "job")

    def __init__(self, job: Job, future: asyncio.Future[Outcome], gate: Gate) -> None:
        self.job = job
        self._future = future
        self._gate = gate

    @property
    def is_wanted(self) -> bool:
        """Say whether anybody still waits for the outcome."""
        return not self._future.cancelled()

    def finish(self, outcome: Outcome) -> None:
        """Take the outcome; in the event loop, exactly once."""
        self._gate.leave()
        if not self._future.done():
            self._future.set_result(outcome)


class Runner(Protocol):
    """Whatever does jobs."""

    @property
    def description(self) -> Description:
        """Return what is known of the model."""
        ...

    @property
    def is_ready(self) -> bool:
        """Say whether jobs would be done now."""
        ...

    @property
    def places(self) -> int:
        """Return how many jobs are done at once."""
        ...

    def start(self, ticket: Ticket) -> None:
        """Do a job and finish its ticket; in the event loop."""
        ...

    def close(self) -> None:
        """Begin nothing more; what is being done is not waited for."""
        ...


class Gate:
    """Lets requests through to a runner, as many as may be in hand."""

    def __init__(
        self, runner: Runner, metrics: Metrics, *, queue: int, sampler: Sampler | None = None
    ) -> None:
        """Let `queue` requests wait beyond those that the runner does at once."""
        self.description = runner.description
        self.metrics = metrics
        metrics.watch(self.description, lambda: min(self._held, runner.places), self._waiting)
        self._runner = runner
        self._sampler = sampler
        self._limit = runner.places + queue
        self._held = 0
        self._is_draining = False

    @property
    def is_ready(self) -> bool:
        """Say whether new requests are welcome."""
        return self._runner.is_ready and not self._is_draining

    async def infer(self, job: Job) -> Result:
        """Have a request answered.

        Raises:
            ServingError: Whatever is wrong with the request, the model or the time.
        """
        start = time.perf_counter()
        outcome = await self._outcome(job)
        self.metrics.count(job.protocol, outcome, time.perf_counter() - start)
        if isinstance(outcome, ServingError):
            raise outcome
        if self._sampler is not None:
            self._sampler.offer(job, outcome)
        return outcome

    def leave(self) -> None:
        """Take back the place of a request that has ended."""
        self._held -= 1

    def start_draining(self) -> None:
        """Say from now on that the server is not ready; what still comes is still answered."""
        self._is_draining = True

    def close(self) -> None:
        """Begin nothing more."""
        self._runner.close()
        if self._sampler is not None:
            self._sampler.close()

    async def _outcome(self, job: Job) -> Outcome:
        if self._held >= self._limit:
            return ServingError(Refusal.OVERLOADED, "too many requests wait: try again later")
        self._held += 1
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._runner.start(Ticket(job, future, self))
        return await future

    def _waiting(self) -> int:
        return max(0, self._held - self._runner.places)
