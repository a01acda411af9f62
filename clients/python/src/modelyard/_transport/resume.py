"""Following a stream across broken connections, without repeating or skipping.

Every message of such a stream carries the cursor after it. Here is kept how far
the caller has got; the two clients only carry messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from modelyard._transport.channel import STREAM_TIMEOUT
from modelyard.errors import DeadlineExceededError, ModelyardError, is_passing

ItemT = TypeVar("ItemT")

PATIENCE = 300.0
"""Seconds without any contact after which a follower gives up."""
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 5.0


class Follow(Generic[ItemT]):
    """One follower of one stream: what to ask for next, and what to hand out.

    `pick` takes the items out of a message, `ended` says that a message was the
    last one wanted. A stream that the server ends is followed again only if
    `endless`. `timeout` bounds the whole, in seconds.
    """

    def __init__(
        self,
        request: Message,
        response: type[Message],
        pick: Callable[[Any], Iterable[ItemT]],
        *,
        ended: Callable[[Any], bool] = lambda _: False,
        endless: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.response = response
        self.done = False
        self._request: Any = type(request)()
        self._request.CopyFrom(request)
        self._pick = pick
        self._ended = ended
        self._endless = endless
        self._delay = _FIRST_DELAY
        self._last_contact = time.monotonic()
        self._end = None if timeout is None else self._last_contact + timeout

    @property
    def request(self) -> Message:
        """The request that goes on after the last message received."""
        request: Message = self._request
        return request

    @property
    def timeout(self) -> float:
        """How many seconds the next stream may last."""
        if self._end is None:
            return STREAM_TIMEOUT
        return max(0.0, min(STREAM_TIMEOUT, self._end - time.monotonic()))

    def received(self, message: Any) -> list[ItemT]:
        """Take note of a message and return its items."""
        items = list(self._pick(message))
        if message.cursor:
            self._request.cursor = message.cursor
        self._delay = _FIRST_DELAY
        self._last_contact = time.monotonic()
        self.done = self._ended(message)
        return items

    def closed(self) -> float:
        """Take note that the server ended the stream; return after which delay to go on."""
        self.done = not self._endless
        return self._back_off()

    def failed(self, error: ModelyardError) -> float:
        """Return after how many seconds to go on; raise the error if that is no use."""
        now = time.monotonic()
        if self._end is not None and now >= self._end:
            raise DeadlineExceededError("it did not end in the time given") from error
        delay = error.retry_delay or self._back_off()
        if not is_passing(error) or now + delay - self._last_contact > PATIENCE:
            raise error
        return delay if self._end is None else min(delay, self._end - now)

    def _back_off(self) -> float:
        delay = self._delay
        self._delay = min(delay * 2, _LONGEST_DELAY)
        return delay
