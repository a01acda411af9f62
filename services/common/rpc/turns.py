"""Who works next when more is asked of a service than it can do at a time.

So many unary calls are worked on at once; the next ones wait, in a line for each principal, and
principals take turns, so whoever asks for little hardly waits for who asks for much. Lines are
short, and what finds no room is refused at once: work that would only be late costs the work
that would be in time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from services.common.errors import Reason, ServiceError

SHARE = 3
"""A line may be so many times as long as the room that is left: one principal alone takes three
quarters of it, and there is always some for another."""
RETRY_SECONDS = 1.0


class Turns:
    """The calls of one service that are worked on or wait; to be used from one event loop.

    Args:
        at_once: how many calls are worked on at once; 0: any number.
        waiting: how many may wait, of all principals.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once = at_once
        self._waiting = waiting
        self._working = 0
        self._count = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, principal: str) -> None:
        """Wait until it is a principal's turn; to be given back by `give_back`.

        Raises:
            ServiceError: LIMIT_EXCEEDED at once, and when to come again.
        """
        if not self.are_all_taken:
            self._working += 1
            return
        if self.are_out(principal):
            raise no_turn()
        turn = self._queue(principal)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(principal, turn)
            else:
                self.give_back()  # it was given to whoever has just left
            raise

    @property
    def are_all_taken(self) -> bool:
        """Say whether the next call has to wait."""
        return 0 < self._at_once <= self._working

    def are_out(self, principal: str) -> bool:
        """Say whether a principal would neither get a turn nor have room to wait for one."""
        if not self.are_all_taken:
            return False
        return len(self._lines.get(principal, ())) >= SHARE * (self._waiting - self._count)

    def give_back(self) -> None:
        """Hand a turn to the principal who has waited longest since his last one."""
        while self._lines:
            principal, line = next(iter(self._lines.items()))
            turn = line.popleft()
            self._count -= 1
            if line:
                self._lines.move_to_end(principal)
            else:
                del self._lines[principal]
            if not turn.done():  # else its caller left, and has not been told yet
                turn.set_result(None)
                return
        self._working -= 1

    def _queue(self, principal: str) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(principal, deque()).append(turn)
        self._count += 1
        return turn

    def _leave(self, principal: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(principal)
        if line is None or turn not in line:
            return
        line.remove(turn)
        self._count -= 1
        if not line:
            del self._lines[principal]


def no_turn() -> ServiceError:
    """Say that the service has no room for a call, and when to come again."""
    return ServiceError(
        Reason.LIMIT_EXCEEDED,
        "the service has more to do than it can; try again later",
        retry_seconds=RETRY_SECONDS,
        limit="calls_waiting",
    )
