"""A build's events on their way to the builder: batched, in order, never lost, bounded.

A line that comes alone goes at once; while the builder has not acknowledged it, what
comes meanwhile is gathered, and goes together. So the faster something is printed,
the larger the batches.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from modelyard.builder.v1 import build_event_pb2, build_pb2, worker_service_pb2

from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.lines import Line, OnOutput
from services.builder.worker.patience import Patience
from services.common.errors import Reason, ServiceError
from services.common.rpc import status

logger = logging.getLogger(__name__)

BATCH_BYTES = 192 * 1024
"""How much text a batch holds; with the rest of its events it stays below 256 KiB."""
BATCH_EVENTS = 1_500
WAITING_BYTES = 8 * 1024 * 1024
ON_THE_WAY = 8
"""So many batches may be on their way when more than one is full."""
_SAME_MOMENT_NS = 1_000_000

STDOUT = build_event_pb2.LOG_STREAM_STDOUT
STDERR = build_event_pb2.LOG_STREAM_STDERR
SYSTEM = build_event_pb2.LOG_STREAM_SYSTEM

Event = build_event_pb2.BuildEvent
StreamKind: TypeAlias = build_event_pb2.LogStream.ValueType


@dataclass(frozen=True, slots=True)
class Batch:
    """Events under one number."""

    sequence: int
    payload: bytes
    taken: int
    """How many events of the attempt had been taken with its last one."""


class EventReporter:
    """Takes events and sends them; whoever prints too fast waits."""

    def __init__(self, client: BuilderClient, lease: worker_service_pb2.Lease) -> None:
        self._client = client
        self._lease = lease
        self._open = build_event_pb2.BuildEventBatch()
        self._open_bytes = 0
        self._full: deque[Batch] = deque()
        self._sent: deque[Batch] = deque()
        self._sequence = 0
        self._taken = 0
        self._durable = 0
        self._template = Event(attempt=lease.attempt)
        self._template_ns = 0
        self._more = asyncio.Event()
        self._changed = asyncio.Condition()
        self.phase: build_pb2.PhaseKind.ValueType = build_pb2.PHASE_KIND_PROVISION

    def line(self, stream: StreamKind, text: str, *, progress: bool = False) -> None:
        """Take a printed line, however many wait."""
        log = self._take(len(text) if text.isascii() else len(text.encode())).log
        log.stream, log.text = stream, text
        if progress:
            log.progress = True

    def metric(self, key: str, step: int, value: float) -> None:
        """Take a metric point."""
        metric = self._take(len(key.encode())).metric
        metric.key, metric.step, metric.value = key, step, value

    def printer(self, stream: StreamKind) -> OnOutput:
        """Return what takes a stream's lines, waiting while too many wait."""

        async def take(line: Line) -> None:
            self.line(stream, line.text, progress=line.progress)
            if len(self._full) * BATCH_BYTES > WAITING_BYTES:
                await self._until(lambda: len(self._full) * BATCH_BYTES <= WAITING_BYTES)

        return take

    async def flush(self) -> None:
        """Wait until everything taken so far is durable."""
        goal = self._taken
        await self._until(lambda: self._durable >= goal)

    async def run(self) -> None:
        """Send what is taken until cancelled.

        Raises:
            ServiceError: LEASE_LOST.
        """
        patience = Patience()
        while True:
            before = self._durable
            try:
                await self._carry(self._client.open_events())
            except ServiceError as error:
                if self._durable > before:
                    patience.forgive()
                await patience.bear(error)

    async def _carry(self, stream: Any) -> None:
        """Send over a stream, what it did not acknowledge before first, until it breaks."""
        reading = asyncio.create_task(self._acknowledgements(stream))
        try:
            for batch in tuple(self._sent):
                await stream.write(self._request(batch))
            while not reading.done():
                following = self._next()
                if following is not None:
                    self._sent.append(following)
                    await stream.write(self._request(following))
                    continue
                self._more.clear()
                more = asyncio.create_task(self._more.wait())
                try:
                    await asyncio.wait([reading, more], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    more.cancel()
            await reading
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await reading  # which knows better why
        finally:
            reading.cancel()
            stream.cancel()

    async def _acknowledgements(self, stream: Any) -> None:
        try:
            while (answer := await stream.read()) is not grpc.aio.EOF:
                await self._acknowledge(answer.acknowledged_sequence)
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error
        raise ServiceError(Reason.SERVICE_UNAVAILABLE, "the stream ended")

    async def _acknowledge(self, sequence: int) -> None:
        while self._sent and self._sent[0].sequence <= sequence:
            self._durable = self._sent.popleft().taken
        self._more.set()
        async with self._changed:
            self._changed.notify_all()

    def _next(self) -> Batch | None:
        """Return what may go now."""
        if self._full:
            return self._full.popleft() if len(self._sent) < ON_THE_WAY else None
        if self._open.events and not self._sent:
            self._close()
            return self._full.popleft()
        return None

    def _close(self) -> None:
        self._sequence += 1
        self._full.append(Batch(self._sequence, self._open.SerializeToString(), self._taken))
        self._open, self._open_bytes = build_event_pb2.BuildEventBatch(), 0

    def _request(self, batch: Batch) -> worker_service_pb2.ReportEventsRequest:
        return worker_service_pb2.ReportEventsRequest(
            lease=self._lease, sequence=batch.sequence, batch=batch.payload
        )

    def _take(self, size: int) -> Event:
        """Return a new event of now, in the batch that is open."""
        full = self._open_bytes + size > BATCH_BYTES or len(self._open.events) >= BATCH_EVENTS
        if full and self._open.events:
            self._close()
        self._open_bytes += size
        self._taken += 1
        self._more.set()
        now = time.time_ns()
        template = self._template
        if now - self._template_ns > _SAME_MOMENT_NS or template.phase != self.phase:
            # Lines of one millisecond share their moment: making one costs more than all else.
            self._template_ns, template.phase = now, self.phase
            template.time.FromNanoseconds(now)
        event = self._open.events.add()
        event.CopyFrom(template)
        return event

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)
