"""How much one principal may ask of a server; `turns.py` shares what all ask for together.

What is over a limit is refused before anything is done for it, and told when to come again.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from services.common.errors import Reason, ServiceError

PRINCIPALS = 10_000
"""So many principals' rates are remembered; who is forgotten has his whole burst again."""


class Limiter:
    """Counts calls; to be used from one event loop.

    Args:
        calls_per_second: how many calls a principal may begin, in the long run; 0: any.
        burst: how many at once, after a rest.
        streams: how many streams, uploads among them, a principal may have open; 0: any.
        requests: how many unary calls whose request is awaited; 0: any.
        clock: seconds, rising.
    """

    def __init__(
        self,
        *,
        calls_per_second: float = 0,
        burst: int = 0,
        streams: int = 0,
        requests: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = calls_per_second
        self._burst = max(burst, 1)
        self._maximum_streams = streams
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._streams: Counter[str] = Counter()
        self._maximum_requests = requests
        self._requests: Counter[str] = Counter()

    def enter(self, principal: str, *, is_stream: bool) -> None:
        """Let a call in, to `leave` at its end.

        Raises:
            ServiceError: LIMIT_EXCEEDED, and when to come again.
        """
        maximum = self._maximum_streams
        if is_stream and maximum and self._streams[principal] >= maximum:
            raise _exceeded("streams_of_a_principal", maximum, 1.0)
        if self._rate:
            self._spend(principal)
        if is_stream:
            self._streams[principal] += 1

    def leave(self, principal: str, *, is_stream: bool) -> None:
        """See a call out that was let in."""
        if is_stream:
            _take(self._streams, principal)

    def await_request(self, principal: str) -> None:
        """Count a unary call whose request is not there yet, until `end_wait`.

        Raises:
            ServiceError: LIMIT_EXCEEDED, and when to come again.
        """
        maximum = self._maximum_requests
        if maximum and self._requests[principal] >= maximum:
            raise _exceeded("awaited_requests_of_a_principal", maximum, 1.0)
        self._requests[principal] += 1

    def end_wait(self, principal: str) -> None:
        """Count a unary call no more whose request came, or will not."""
        _take(self._requests, principal)

    def _spend(self, principal: str) -> None:
        now = self._clock()
        tokens, since = self._buckets.pop(principal, (float(self._burst), now))
        tokens = min(tokens + (now - since) * self._rate, self._burst)
        allowed = tokens >= 1
        self._buckets[principal] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > PRINCIPALS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise rate_exceeded(self._rate, (1 - tokens) / self._rate)


def _take(counts: Counter[str], principal: str) -> None:
    """Count one less; who has none is forgotten."""
    counts[principal] -= 1
    if not counts[principal]:
        del counts[principal]


def rate_exceeded(rate: float, seconds: float) -> ServiceError:
    """Say that a principal begins more calls a second than he may, and when to come again."""
    return _exceeded("calls_per_second", rate, seconds)


def _exceeded(limit: str, maximum: float, seconds: float) -> ServiceError:
    return ServiceError(
        Reason.LIMIT_EXCEEDED,
        f"more than {maximum:g} {limit.replace('_', ' ')}; try again later",
        retry_seconds=seconds,
        limit=limit,
        maximum=f"{maximum:g}",
    )
