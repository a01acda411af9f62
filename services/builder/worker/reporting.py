"""A build's events on their way to the builder: batched, in order, never lost, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from google.protobuf import timestamp_pb2
from modelyard.builder.v1 import build_event_pb2, build_pb2, worker_service_pb2

from services.builder.worker.builder_client import BuilderClient
from services.builder.worker.lines import Line, OnOutput

BATCH_SECONDS = 0.1
BATCH_BYTES = 224 * 1024
WAITING_BYTES = 8 * 1024 * 1024
_FRAME_BYTES = 8

STDOUT = build_event_pb2.LOG_STREAM_STDOUT
STDERR = build_event_pb2.LOG_STREAM_STDERR
SYSTEM = build_event_pb2.LOG_STREAM_SYSTEM


class EventReporter:
    """Takes events and sends them; whoever prints too fast waits."""

    def __init__(self, client: BuilderClient, lease: worker_service_pb2.Lease) -> None:
        self._client = client
        self._lease = lease
        self._waiting: list[build_event_pb2.BuildEvent] = []
        self._bytes = 0
        self._sequence = 0
        self._taken = 0
        self._sent = 0
        self._changed = asyncio.Condition()
        self.phase: build_pb2.PhaseKind.ValueType = build_pb2.PHASE_KIND_PROVISION

    def line(
        self, stream: build_event_pb2.LogStream.ValueType, text: str, *, progress: bool = False
    ) -> None:
        """Take a printed line, however many wait."""
        event = self._event()
        event.log.stream, event.log.text, event.log.progress = stream, text, progress
        self._take(event)

    def metric(self, key: str, step: int, value: float) -> None:
        """Take a metric point."""
        event = self._event()
        event.metric.key, event.metric.step, event.metric.value = key, step, value
        self._take(event)

    def printer(self, stream: build_event_pb2.LogStream.ValueType) -> OnOutput:
        """Return what takes a stream's lines, waiting while too many wait."""

        async def take(line: Line) -> None:
            self.line(stream, line.text, progress=line.progress)
            if self._bytes > WAITING_BYTES:
                await self._until(lambda: self._bytes <= WAITING_BYTES)

        return take

    async def flush(self) -> None:
        """Wait until everything taken so far is durable."""
        goal = self._taken
        await self._until(lambda: self._sent >= goal)

    async def run(self) -> None:
        """Send what is taken until cancelled.

        Raises:
            ServiceError: LEASE_LOST.
        """
        while True:
            if not self._waiting:
                await asyncio.sleep(BATCH_SECONDS / 4)
                continue
            if self._bytes < BATCH_BYTES:
                await asyncio.sleep(BATCH_SECONDS / 2)
            events, self._waiting = self._waiting, []
            self._bytes = 0
            await self._client.report_events(self._lease, self._batches(events))
            self._sent += len(events)
            async with self._changed:
                self._changed.notify_all()

    def _batches(self, events: list[build_event_pb2.BuildEvent]) -> list[tuple[int, bytes]]:
        """Cut events into numbered batches that are not too large."""
        batches: list[tuple[int, bytes]] = []
        batch, size = build_event_pb2.BuildEventBatch(), 0
        for event in events:
            more = event.ByteSize() + _FRAME_BYTES
            if size and size + more > BATCH_BYTES:
                batches.append(self._numbered(batch))
                batch, size = build_event_pb2.BuildEventBatch(), 0
            batch.events.append(event)
            size += more
        return [*batches, self._numbered(batch)]

    def _numbered(self, batch: build_event_pb2.BuildEventBatch) -> tuple[int, bytes]:
        self._sequence += 1
        return self._sequence, batch.SerializeToString()

    def _event(self) -> build_event_pb2.BuildEvent:
        now = timestamp_pb2.Timestamp()
        now.GetCurrentTime()
        return build_event_pb2.BuildEvent(time=now, attempt=self._lease.attempt, phase=self.phase)

    def _take(self, event: build_event_pb2.BuildEvent) -> None:
        self._waiting.append(event)
        self._bytes += event.ByteSize() + _FRAME_BYTES
        self._taken += 1

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)
