"""`client.resolver`: which version an alias points to, answered from memory.

A resolver lists, then watches. It is what an inference controller or a gateway asks
at every request: an answer takes about a microsecond and needs no server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from modelyard._resolving import Memory
from modelyard._transport.connection import AsyncConnection, Connection
from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard._names import Names, Ref
    from modelyard.metadata.v1.version_pb2 import Version

_JOIN = 10.0


class _Resolver:
    def __init__(self, names: Names, models: Sequence[Ref]) -> None:
        self._memory = Memory(names, models)

    @property
    def staleness(self) -> float:
        """For how many seconds changes may have been missed; 0.0 while the server is heard."""
        return self._memory.staleness

    def resolve(self, target: Ref) -> Version:
        """Return the version an alias points to: `churn@production`; of one model, `production`.

        It is answered from memory, also while the server is away: `staleness` says for how long.
        The version is shared between callers: do not change it. Left out are
        its `aliases` and its `card`.

        Raises:
            NotFoundError: The alias points nowhere.
            UnauthenticatedError, PermissionDeniedError: One may no longer watch.
        """
        return self._memory.find(target)


class Resolver(_Resolver):
    """Where some models' aliases point, kept up to date by a thread; safe to share between threads.

    Open it by `with` or `open`; what a fork makes of it refuses to answer.
    """

    def __init__(self, connection: Connection, names: Names, models: Sequence[Ref]) -> None:
        super().__init__(names, models)
        # A channel of its own: closing it is what ends a stream that another thread reads.
        self._connection = Connection(connection.settings, timeout=connection.timeout)
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_up, name="modelyard-resolver", daemon=True
        )

    def open(self) -> Self:
        """Read where the aliases point, and begin to watch.

        Raises:
            ModelyardError: The server is away, or refuses.
        """
        self._connection.run(self._memory.begin())
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop watching; what is remembered can still be asked for."""
        self._closing.set()
        if self._memory.feed is not None:
            self._memory.feed.done = True
        self._connection.close()
        if self._thread.is_alive():
            self._thread.join(_JOIN)
        self._memory.is_broken = True

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _keep_up(self) -> None:
        memory, delay = self._memory, 0.0
        while not self._closing.wait(delay) and memory.failure is None:
            try:
                self._follow()
            except ModelyardError as error:
                delay = 0.0 if self._closing.is_set() else memory.fail(error)
            except ValueError:  # gRPC's word for a closed channel
                if not self._closing.is_set():
                    raise

    def _follow(self) -> None:
        if self._memory.feed is None:
            self._connection.run(self._memory.begin())
        assert self._memory.feed is not None  # noqa: S101 - it has begun
        for message in self._connection.follow(self._memory.feed):
            self._connection.run(self._memory.take(message))


class AsyncResolver(_Resolver):
    """Where some models' aliases point, kept up to date by a task; otherwise like `Resolver`."""

    def __init__(self, connection: AsyncConnection, names: Names, models: Sequence[Ref]) -> None:
        super().__init__(names, models)
        self._connection = connection
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Read where the aliases point, and begin to watch.

        Raises:
            ModelyardError: The server is away, or refuses.
        """
        await self._connection.run(self._memory.begin())
        self._task = asyncio.create_task(self._keep_up(), name="modelyard-resolver")
        return self

    async def close(self) -> None:
        """Stop watching; what is remembered can still be asked for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._memory.is_broken = True

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _keep_up(self) -> None:
        memory = self._memory
        while memory.failure is None:
            try:
                await self._follow()
            except ModelyardError as error:
                await asyncio.sleep(memory.fail(error))

    async def _follow(self) -> None:
        if self._memory.feed is None:
            await self._connection.run(self._memory.begin())
        assert self._memory.feed is not None  # noqa: S101 - it has begun
        async for message in self._connection.follow(self._memory.feed):
            await self._connection.run(self._memory.take(message))
