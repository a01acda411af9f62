"""What a writer of a run has to say: requests, numbered, until the server has them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from modelyard._values import encode_params
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import model_pb2
from modelyard.metadata.v1 import run_service_pb2 as service

MAX_POINTS = 10_000
"""So many points does the server take in one batch."""
AHEAD = 16
"""So many batches are sent before the first is acknowledged."""

_GOALS = {
    "maximize": model_pb2.METRIC_GOAL_MAXIMIZE,
    "minimize": model_pb2.METRIC_GOAL_MINIMIZE,
}


def encode_goals(goals: Mapping[str, str] | None) -> dict[str, model_pb2.MetricGoal.ValueType]:
    """Return goals, `maximize` or `minimize` by metric, as they are sent."""
    found = {}
    for key, goal in (goals or {}).items():
        if goal not in _GOALS:
            raise InvalidArgumentError(
                f"{key}: a goal is maximize or minimize, not {goal!r}", reason="INVALID_FIELD"
            )
        found[key] = _GOALS[goal]
    return found


class Outgoing:
    """The batches of one writer: which the server has not acknowledged, and the next's number."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.writer = _new_writer()
        self.pending: deque[service.IngestRunDataRequest] = deque()
        self._end = 0
        self._counters: dict[str, Iterator[int]] = {}

    def position(self) -> service.GetIngestPositionRequest:
        """Return the question how far the server got."""
        return service.GetIngestPositionRequest(run=self.run, writer=self.writer)

    def add(self, request: service.IngestRunDataRequest) -> None:
        """Number a batch and keep it until it is acknowledged."""
        request.run, request.writer = self.run, self.writer
        request.start_sequence, request.end_sequence = self._end, self._end + 1
        self._end += 1
        self.pending.append(request)

    def acknowledged(self, position: int) -> None:
        """Forget the batches that the server has."""
        while self.pending and self.pending[0].end_sequence <= position:
            self.pending.popleft()

    def resume(self, position: int) -> None:
        """Go on where the server is, after whatever happened."""
        self.acknowledged(position)
        for place, request in enumerate(self.pending):
            request.start_sequence, request.end_sequence = position + place, position + place + 1
        self._end = position + len(self.pending)

    def abandon(self) -> None:
        """Give up what was not acknowledged.

        Some of it may still be on its way: what comes next is numbered as another writer's.
        """
        self.pending.clear()
        self.writer = _new_writer()

    def record(
        self,
        metrics: Mapping[str, float] | None,
        *,
        step: int | None,
        params: Mapping[str, object] | None,
        tags: Mapping[str, str] | None,
        goals: Mapping[str, str] | None,
    ) -> service.IngestRunDataRequest:
        """Return one moment's metrics, with parameters and tags, as a batch."""
        request = service.IngestRunDataRequest(
            params=encode_params(params), tags=tags, metric_goals=encode_goals(goals)
        )
        add, now = request.metrics.add, [time.time_ns() // 1000]
        for key, value in (metrics or {}).items():
            at = next(self._counter(key)) if step is None else step
            add(key=key, steps=[at], times_us=now, values=[value])
        return request

    def columns(
        self,
        values: Mapping[str, Sequence[float]],
        *,
        steps: Sequence[int] | None,
        times_us: Sequence[int] | None,
    ) -> Iterator[service.IngestRunDataRequest]:
        """Yield batches of whole columns; each holds as many points as the server takes."""
        request, room = service.IngestRunDataRequest(), MAX_POINTS
        for key, column in values.items():
            count = len(column)
            if steps is not None and len(steps) != count:
                raise InvalidArgumentError(
                    f"{key}: {count} values for {len(steps)} steps", reason="INVALID_FIELD"
                )
            at = list(itertools.islice(self._counter(key), count)) if steps is None else steps
            moments = [time.time_ns() // 1000] * count if times_us is None else times_us
            start = 0
            while start < count:
                end = min(start + room, count)
                request.metrics.add(
                    key=key,
                    steps=at[start:end],
                    times_us=moments[start:end],
                    values=column[start:end],
                )
                room -= end - start
                start = end
                if not room:
                    yield request
                    request, room = service.IngestRunDataRequest(), MAX_POINTS
        if request.metrics:
            yield request

    def _counter(self, key: str) -> Iterator[int]:
        return self._counters.setdefault(key, itertools.count())


def _new_writer() -> str:
    return f"client-{secrets.token_hex(8)}"
