"""Jobs done in threads of this process, next to the model: what one worker needs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from modelyard.serving.batching import Batcher, Batching
from modelyard.serving.domain import Description, Refusal, ServingError
from modelyard.serving.engine import Engine
from modelyard.serving.gate import Ticket
from modelyard.serving.jobs import perform, perform_all


class Threads:
    """Does as many jobs at once as there are threads."""

    def __init__(self, engine: Engine, *, concurrency: int) -> None:
        self.places = concurrency
        self.is_ready = True
        self._engine = engine
        self._executor = ThreadPoolExecutor(concurrency, thread_name_prefix="predict")

    @property
    def description(self) -> Description:
        """Return what is known of the model."""
        return self._engine.description

    def start(self, ticket: Ticket) -> None:
        """Do a job in a thread; in the event loop."""
        try:
            self._executor.submit(self._do, ticket, asyncio.get_running_loop())
        except RuntimeError:  # it is closed
            ticket.finish(ServingError(Refusal.NOT_READY, "the server is going away"))

    def close(self) -> None:
        """Let the threads end; the ones that predict are not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _do(self, ticket: Ticket, loop: asyncio.AbstractEventLoop) -> None:
        gone = ServingError(Refusal.NOT_READY, "nobody waits for it")
        outcome = perform(self._engine, ticket.job) if ticket.is_wanted else gone
        loop.call_soon_threadsafe(ticket.finish, outcome)


class BatchedThreads:
    """Does as many jobs at once as there are threads, each of them with others that wait."""

    def __init__(self, engine: Engine, *, concurrency: int, batching: Batching) -> None:
        self.places = concurrency * batching.max_size
        self.is_ready = True
        self._engine = engine
        self._batcher = Batcher(self._do, batching, threads=concurrency)

    @property
    def description(self) -> Description:
        """Return what is known of the model."""
        return self._engine.description

    def start(self, ticket: Ticket) -> None:
        """Do a job in a thread; in the event loop."""
        self._batcher.put((ticket, asyncio.get_running_loop()))

    def close(self) -> None:
        """Let the threads end; the ones that predict are not waited for."""
        self._batcher.close()

    def _do(self, batch: list[tuple[Ticket, asyncio.AbstractEventLoop]]) -> None:
        gone = ServingError(Refusal.NOT_READY, "nobody waits for it")
        wanted = [ticket.is_wanted for ticket, _ in batch]
        jobs = [
            ticket.job for (ticket, _), is_wanted in zip(batch, wanted, strict=True) if is_wanted
        ]
        outcomes = iter(perform_all(self._engine, jobs))
        for (ticket, loop), is_wanted in zip(batch, wanted, strict=True):
            loop.call_soon_threadsafe(ticket.finish, next(outcomes) if is_wanted else gone)
