"""Jobs done by worker processes, each with the model loaded anew.

Loaded anew rather than forked from one that has it: what a model starts while it loads (threads,
GPU contexts) does not survive a fork. A job goes to the worker with the fewest in hand. One that
dies loses its jobs only and is replaced, ever later while it does not stay; when the last one dies
the server ends, so that whoever keeps it sees it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from modelyard.serving.batching import Batching
from modelyard.serving.domain import Description, Refusal, ServingError
from modelyard.serving.gate import Ticket
from modelyard.serving.metrics import Metrics
from modelyard.serving.starting import FAILED, LoadFailedError, Target
from modelyard.serving.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_STAYED_SECONDS = 60.0


class Pool:
    """Does as many jobs at once as the workers together may."""

    description: Description

    def __init__(
        self,
        target: Target,
        *,
        workers: int,
        concurrency: int,
        batching: Batching,
        metrics: Metrics,
    ) -> None:
        self._room = concurrency * batching.max_size
        self.places = workers * self._room
        self._batching = batching
        self._target = target
        self._count = workers
        self._concurrency = concurrency
        self._metrics = metrics
        self._alive: list[WorkerProcess] = []
        self._started: set[WorkerProcess] = set()
        self._waiting: deque[Ticket] = deque()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def is_ready(self) -> bool:
        """Say whether a worker is there; the server began with all of them."""
        return bool(self._alive)

    async def open(self, on_dead: Callable[[], None]) -> None:
        """Start all workers and wait until all have loaded.

        Args:
            on_dead: Called when the last worker has died.

        Raises:
            LoadFailedError: One of them could not load.
        """
        starts = [self._start() for _ in range(self._count)]
        workers = await asyncio.gather(*starts)
        greetings = await asyncio.gather(*(worker.greeting() for worker in workers))
        if greetings[0] is None or None in greetings:
            failed = workers[greetings.index(None)]
            code = await failed.wait()
            self.close()
            raise LoadFailedError(code if code > 0 else FAILED)
        self.description = greetings[0]
        self._alive = list(workers)
        self._keepers = [asyncio.create_task(self._keep(w, on_dead)) for w in workers]

    def start(self, ticket: Ticket) -> None:
        """Have a job done; in the event loop."""
        self._waiting.append(ticket)
        self._assign()

    def close(self) -> None:
        """Let the workers end; the ones that predict are not waited for."""
        for keeper in self._keepers:
            keeper.cancel()
        for worker in self._started:
            worker.close()
            worker.kill()

    async def _start(self) -> WorkerProcess:
        worker = await WorkerProcess.start(
            self._target, concurrency=self._concurrency, batching=self._batching
        )
        self._started.add(worker)
        return worker

    def _assign(self) -> None:
        """Give waiting jobs to workers that have room."""
        while self._waiting:
            worker = min(self._alive, key=lambda found: found.busy, default=None)
            if worker is None or worker.busy >= self._room:
                return
            ticket = self._waiting.popleft()
            if ticket.is_wanted:
                worker.send(ticket)
            else:
                ticket.finish(ServingError(Refusal.NOT_READY, "nobody waits for it"))

    async def _keep(self, worker: WorkerProcess, on_dead: Callable[[], None]) -> None:
        """Attend to a worker, and to those that replace it."""
        delay = _FIRST_DELAY
        while True:
            since = time.monotonic()
            while await worker.next_finished():
                self._assign()
            self._alive.remove(worker)
            if not self._alive:
                self._refuse_waiting()
                on_dead()
            await self._bury(worker)
            if time.monotonic() - since > _STAYED_SECONDS:
                delay = _FIRST_DELAY
            worker, delay = await self._replace(delay)
            self._alive.append(worker)
            self._assign()

    async def _replace(self, delay: float) -> tuple[WorkerProcess, float]:
        """Return a worker that has loaded, and how long to wait before the next one."""
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_DELAY)
            worker = await self._start()
            if await worker.greeting() is not None:
                self._metrics.count_restart()
                logger.info("worker replaced", extra={"worker": worker.pid})
                return worker, delay
            await self._bury(worker)

    async def _bury(self, worker: WorkerProcess) -> None:
        worker.close()
        worker.kill()
        code = await worker.wait()
        self._started.discard(worker)
        logger.error("worker ended", extra={"worker": worker.pid, "code": code})

    def _refuse_waiting(self) -> None:
        while self._waiting:
            ticket = self._waiting.popleft()
            ticket.finish(ServingError(Refusal.NOT_READY, "the server is going away"))
