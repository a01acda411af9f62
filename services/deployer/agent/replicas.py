"""The model servers of one variant: started together, each brought back when it dies.

As long as one of them answers, the variant does; the dead ones come back by
themselves, ever more slowly while they do not stay. When the last one dies, that
is the variant's failure, and nothing comes back until it is started again.
"""

from __future__ import annotations

import asyncio
import logging
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
        self._keepers: list[asyncio.Task[None]] = []
        self._failure: asyncio.Future[ModelServerError] = asyncio.get_running_loop().create_future()
        self._last: ModelServerProcess | None = None
        self.restart_count = 0

    async def start(self) -> None:
        """Start all of them and wait until they are ready.

        Raises:
            ModelServerError: One could not be made ready; nothing is left of any.
        """
        starting = [asyncio.create_task(self._start(index)) for index in range(self._count)]
        try:
            servers = await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self._stop_ready(0)
            raise
        for index, server in enumerate(servers):
            self._keepers.append(asyncio.create_task(self._keep(index, server)))

    @property
    def ports(self) -> tuple[Ports, ...]:
        """Return where the ready ones listen."""
        return tuple(self._ready[index].ports for index in sorted(self._ready))

    @property
    def ready_count(self) -> int:
        """Return how many are ready."""
        return len(self._ready)

    async def failure(self) -> ModelServerError:
        """Wait until the last one died; return how."""
        return await asyncio.shield(self._failure)

    def tail(self, count: int) -> list[str]:
        """Return the last log lines of one of them."""
        found = next(iter(self._ready.values()), self._last)
        return [] if found is None else found.tail(count)

    async def stop(self, grace: float | None = None) -> None:
        """End them all; each may finish what it has in hand."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await self._stop_ready(grace)

    async def _stop_ready(self, grace: float | None) -> None:
        servers, self._ready = list(self._ready.values()), {}
        stopping = [server.stop() if grace is None else server.stop(grace) for server in servers]
        await asyncio.gather(*stopping)

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
