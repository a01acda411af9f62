"""Calls that have no end of their own, ended when their server stops.

A follower would hold a stop up for its whole grace. So it is sent away with UNAVAILABLE as
soon as calls are no longer taken, and goes on from its cursor at another replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from services.common.errors import Reason, ServiceError

RETRY_SECONDS = 0.1

_Handler = TypeVar("_Handler", bound=Callable[..., Any])
_ENDLESS = "_endless"


def endless(handler: _Handler) -> _Handler:
    """Mark a servicer's streaming method that ends only because its caller or server does.

    It may be ended wherever it waits: what it has not answered is asked, or sent, again.
    """
    setattr(handler, _ENDLESS, True)
    return handler


def is_endless(handler: Callable[..., Any]) -> bool:
    """Say whether a servicer's method is marked so."""
    return getattr(handler, _ENDLESS, False)


class Stream(Protocol):
    """A call without end."""

    alarm: asyncio.Timeout | None
    is_sending: bool


class Drain:
    """Whether a server takes no more calls, and the streams to be ended then.

    To be used from one event loop.
    """

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._streams: set[Stream] = set()

    @property
    def begun(self) -> bool:
        """Say whether the server stops."""
        return self._begun.is_set()

    async def until(
        self, awaited: Coroutine[Any, Any, Any], *, seconds: float | None = None
    ) -> None:
        """Wait for something, until the server stops; what has not come by then is cancelled."""
        waits = [asyncio.ensure_future(one) for one in (awaited, self._begun.wait())]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def enter(self, stream: Stream) -> None:
        """Have a stream ended, by its alarm, when the server stops."""
        self._streams.add(stream)
        if self.begun:
            _ring(stream)

    def leave(self, stream: Stream) -> None:
        """Forget a stream."""
        self._streams.discard(stream)

    def begin(self) -> None:
        """End the streams: at once what waits, the others once their message is out.

        Whose caller does not read is left to the end of the grace.
        """
        self._begun.set()
        for stream in self._streams:
            if not stream.is_sending:
                _ring(stream)


def stopping() -> ServiceError:
    """Say that the server stops, and that its callers may go on elsewhere."""
    message = "this server stops; go on at another, from the last cursor"
    return ServiceError(Reason.SERVICE_UNAVAILABLE, message, retry_seconds=RETRY_SECONDS)


def _ring(stream: Stream) -> None:
    if stream.alarm is not None and not stream.alarm.expired():
        stream.alarm.reschedule(asyncio.get_running_loop().time())
