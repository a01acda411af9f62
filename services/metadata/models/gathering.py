"""What many callers want at the same time, done together: while one is under way, more gather."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(Generic[Key, Item, Answer]):
    """Does items of one key together; to be used from one event loop.

    Args:
        do: does some items of a key, and returns an answer, or an error, for each. What it
            raises is the answer to all of them.
        most: so many items are done together at most.
    """

    def __init__(
        self,
        do: Callable[[Key, list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        most: int,
    ) -> None:
        self._do = do
        self._most = most
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Answer]]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, key: Key, item: Item) -> Answer:
        """Return the answer to an item, or raise it."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if key not in self._waiting:
            self._waiting[key] = []
            # A task of its own: whoever asked first may give up, the others do not.
            task = asyncio.create_task(self._drain(key))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        self._waiting[key].append((item, answer))
        return await answer

    async def _drain(self, key: Key) -> None:
        waiting = self._waiting[key]
        while waiting:
            some, waiting[: self._most] = waiting[: self._most], []
            wanted = [(item, answer) for item, answer in some if not answer.done()]
            if wanted:
                _tell(wanted, await self._answers(key, [item for item, _ in wanted]))
        del self._waiting[key]

    async def _answers(self, key: Key, items: list[Item]) -> Sequence[Answer | Exception]:
        try:
            return await self._do(key, items)
        except Exception as error:  # handed to whoever asked
            return [error] * len(items)


def _tell(
    wanted: Sequence[tuple[Item, asyncio.Future[Answer]]], answers: Sequence[Answer | Exception]
) -> None:
    for (_, future), answer in zip(wanted, answers, strict=True):
        if future.done():  # whoever asked has given up
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
