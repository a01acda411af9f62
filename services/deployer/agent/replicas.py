"""The model servers of one variant: started together, each brought back when it dies.

As long as one of them answers, the variant does; the dead ones come back by
themselves, ever more slowly while they do not stay. When the last one dies, that
is the variant's failure, and nothing comes back until it is started again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from services.deployer.agent.model_server import (
    ModelServerError,
    ModelServerProcess,
    ModelServerSpec,
    Ports,
)

logger = logging.getLogger(__name__)

STAYED_SECONDS = 60.0
DRAIN_SECONDS = 30.0
_BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class ReplicaSet:
    """Runs so many model servers of one kind.

    Args:
        spec: What they serve.
        folder: Theirs alone; each has a folder in it.
        count: How many, at least 1.
        ready_seconds: How long one may take to get ready.
        on_change: Awaited when one died or came back, before anything else is done about it.
    """

    def __init__(
        self,
        spec: ModelServerSpec,
        *,
        folder: Path,
        count: int,
        ready_seconds: float,
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._count = count
        self._ready_seconds = ready_seconds
        self._on_change = on_change
        self._ready: dict[int, ModelServerProcess] = {}
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._indexes = itertools.count()
        self._leaving: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[ModelServerError] = asyncio.get_running_loop().create_future()
        self._last: ModelServerProcess | None = None
        self.restart_count = 0

    async def start(self) -> None:
        """Start all of them and wait until they are ready.

        Raises:
            ModelServerError: One could not be made ready; nothing is left of any.
        """
        indexes = [next(self._indexes) for _ in range(self._count)]
        starting = [asyncio.create_task(self._start(index)) for index in indexes]
        try:
            servers = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self._stop_ready(0)
            raise
        for index, server in zip(indexes, servers, strict=True):
            self._keepers[index] = asyncio.create_task(self._keep(index, server))

    @property
    def ports(self) -> tuple[Ports, ...]:
        """Return where the ready ones listen."""
        return tuple(self._ready[index].ports for index in sorted(self._ready))

    @property
    def ready_count(self) -> int:
        """Return how many are ready."""
        return len(self._ready)

    @property
    def wanted_count(self) -> int:
        """Return how many there are to be."""
        return self._count

    def resize(self, count: int) -> None:
        """Have so many, at least 1; what is too much finishes what it has in hand first."""
        self._count = count
        while len(self._keepers) < count:
            index = next(self._indexes)  # never one that still leaves: its folder is its own
            self._keepers[index] = asyncio.create_task(self._join(index))
        # Those that are not ready go first, then the newest.
        for index in sorted(self._keepers, key=lambda index: (index in self._ready, -index)):
            if len(self._keepers) == count:
                break
            leaving = asyncio.create_task(self._leave(index, self._keepers.pop(index)))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def failure(self) -> ModelServerError:
        """Wait until the last one died; return how."""
        return await asyncio.shield(self._failure)

    def tail(self, count: int) -> list[str]:
        """Return the last log lines of one of them."""
        found = next(iter(self._ready.values()), self._last)
        return [] if found is None else found.tail(count)

    async def stop(self, grace: float | None = None) -> None:
        """End them all; each may finish what it has in hand."""
        tasks = [*self._keepers.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stop_ready(grace)

    async def _stop_ready(self, grace: float | None) -> None:
        servers, self._ready = list(self._ready.values()), {}
        stopping = [server.stop() if grace is None else server.stop(grace) for server in servers]
        await asyncio.gather(*stopping)

    async def _join(self, index: int) -> None:
        """Start one more, and keep it."""
        server = await self._bring(index)
        if server is not None:
            await self._on_change()
            await self._keep(index, server)

    async def _leave(self, index: int, keeper: asyncio.Task[None]) -> None:
        """Take one out of use, let it finish what it has in hand, and end it."""
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        server = self._ready.pop(index, None)
        if server is None:
            return
        try:
            await self._on_change()
            await server.wait_idle(DRAIN_SECONDS)
        finally:  # also when all of them are stopped
            await server.stop()
            await asyncio.to_thread(shutil.rmtree, self._folder / str(index), ignore_errors=True)

    async def _start(self, index: int) -> ModelServerProcess:
        server = await ModelServerProcess.start(self._spec, folder=self._folder / str(index))
        try:
            await server.wait_ready(self._ready_seconds)
        except BaseException:
            await server.stop(0)
            raise
        self._ready[index] = self._last = server
        return server

    async def _keep(self, index: int, server: ModelServerProcess) -> None:
        """Bring one back whenever it dies, as long as others answer."""
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            since = loop.time()
            error = await server.crash()
            self._ready.pop(index, None)
            logger.error("model server ended", extra={"problem": error.message, "replica": index})
            if not self._ready and not self._failure.done():
                self._failure.set_result(error)
            await self._on_change()
            attempt = 0 if loop.time() - since > STAYED_SECONDS else attempt
            while not self._failure.done():
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
                attempt, self.restart_count = attempt + 1, self.restart_count + 1
                try:
                    server = await self._start(index)
                    break
                except (ModelServerError, OSError) as again:
                    logger.warning("not brought back", extra={"problem": str(again)})
            else:
                return
            await self._on_change()

    async def _bring(self, index: int) -> ModelServerProcess | None:
        """Start one more, ever later while that fails; None when the last other one died."""
        attempt = 0
        while not self._failure.done():
            try:
                return await self._start(index)
            except (ModelServerError, OSError) as error:
                logger.warning("not started", extra={"problem": str(error), "replica": index})
            await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
            attempt += 1
        return None
