"""Acknowledged logging: `client.runs.writer(run)`, over one stream that stays open.

Each batch has a number. After a broken connection the server is asked how far it
got, and only the rest is sent again: every point is kept exactly once.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from modelyard._ingest import AHEAD, Outgoing
from modelyard._transport import channel as _channel
from modelyard._transport.calls import call, path_of
from modelyard._transport.connection import AsyncConnection, Connection
from modelyard._transport.status import error_from
from modelyard.errors import ModelyardError, UnavailableError, is_passing
from modelyard.metadata.v1 import run_service_pb2 as service

PATIENCE = 60.0
"""Seconds that the server may stay away before a call gives up."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_Request = service.IngestRunDataRequest
_METHOD = (
    path_of(_Request),
    _Request.SerializeToString,
    service.IngestRunDataResponse.FromString,
)


class RunWriter:
    """Logs to a run, each call returning once the server has made it durable.

    Safe to share between threads. What a call that raised had to say may have been kept in
    part: batches of at most 10,000 points are kept whole or not at all, in order.
    """

    def __init__(self, connection: Connection, outgoing: Outgoing, *, patience: float) -> None:
        self._connection = connection
        self._outgoing = outgoing
        self._patience = patience
        self._lock = threading.Lock()
        self._stream: _Stream | None = None

    def log(
        self,
        metrics: Mapping[str, float] | None = None,
        *,
        step: int | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        goals: Mapping[str, str] | None = None,
    ) -> None:
        """Log one step's metrics, and parameters, tags and goals; without a step it is counted.

        Raises:
            FailedPreconditionError: A parameter was logged before with another value.
            UnavailableError: The server stayed away too long.
        """
        with self._lock:
            record = self._outgoing.record(
                metrics, step=step, params=params, tags=tags, goals=goals
            )
            self._deliver(iter((record,)))

    def log_many(
        self,
        values: Mapping[str, Sequence[float]],
        *,
        steps: Sequence[int] | None = None,
        times_us: Sequence[int] | None = None,
    ) -> None:
        """Log many points at once, a list of values by metric; all share `steps` and `times_us`."""
        with self._lock:
            self._deliver(self._outgoing.columns(values, steps=steps, times_us=times_us))

    def close(self) -> None:
        """End the stream; everything logged is acknowledged already."""
        with self._lock:
            self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _deliver(self, batches: Iterator[_Request]) -> None:
        pause, deadline = _FIRST_PAUSE, time.monotonic() + self._patience
        while True:
            try:
                self._exchange(batches)
                return
            except ModelyardError as error:
                self._hang_up()
                wait = max(pause, error.retry_delay or 0.0)
                if not is_passing(error) or time.monotonic() + wait > deadline:
                    self._outgoing.abandon()
                    raise
                time.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except BaseException:
                self._hang_up()
                self._outgoing.abandon()
                raise

    def _exchange(self, batches: Iterator[_Request]) -> None:
        """Send batches, some ahead of their acknowledgement, until all are acknowledged."""
        outgoing = self._outgoing
        stream = self._stream or self._open()
        more = True
        while more or outgoing.pending:
            while more and len(outgoing.pending) < AHEAD:
                batch = next(batches, None)
                if batch is None:
                    more = False
                else:
                    outgoing.add(batch)
                    stream.send(batch)
            if outgoing.pending:
                outgoing.acknowledged(stream.receive())

    def _open(self) -> _Stream:
        """Open a stream and send again what the server has not."""
        answer = call(
            self._outgoing.position(),
            service.GetIngestPositionResponse,
            lambda response: response.acknowledged_sequence,
        )
        self._outgoing.resume(self._connection.call(answer))
        self._stream = _Stream(self._connection)
        for request in self._outgoing.pending:
            self._stream.send(request)
        return self._stream

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class _Stream:
    """One stream of ingest, for one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._server = connection.settings.server
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._channel = connection.channel
        method = self._channel.stream_stream(*_METHOD)
        self._call: Any = method(
            iter(self._requests.get, None),
            timeout=_channel.STREAM_TIMEOUT,
            metadata=_channel.call_metadata(connection.settings),
        )

    def send(self, request: _Request) -> None:
        self._requests.put(request)

    def receive(self) -> int:
        try:
            position: int = next(self._call).acknowledged_sequence
        except StopIteration:
            raise _ended() from None
        except grpc.RpcError as failure:
            raise error_from(failure, server=self._server) from failure
        return position

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()


class AsyncRunWriter:
    """Logs to a run, each call returning once the server has made it durable.

    Its methods are those of `RunWriter`, awaited; it may be shared between tasks.
    """

    def __init__(self, connection: AsyncConnection, outgoing: Outgoing, *, patience: float) -> None:
        self._connection = connection
        self._outgoing = outgoing
        self._patience = patience
        self._lock = asyncio.Lock()
        self._channel = connection.channel
        self._stream: Any = None

    async def log(
        self,
        metrics: Mapping[str, float] | None = None,
        *,
        step: int | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        goals: Mapping[str, str] | None = None,
    ) -> None:
        """Log one step's metrics, and parameters, tags and goals; without a step it is counted.

        Raises:
            FailedPreconditionError: A parameter was logged before with another value.
            UnavailableError: The server stayed away too long.
        """
        async with self._lock:
            record = self._outgoing.record(
                metrics, step=step, params=params, tags=tags, goals=goals
            )
            await self._deliver(iter((record,)))

    async def log_many(
        self,
        values: Mapping[str, Sequence[float]],
        *,
        steps: Sequence[int] | None = None,
        times_us: Sequence[int] | None = None,
    ) -> None:
        """Log many points at once, a list of values by metric; all share `steps` and `times_us`."""
        async with self._lock:
            await self._deliver(self._outgoing.columns(values, steps=steps, times_us=times_us))

    async def close(self) -> None:
        """End the stream; everything logged is acknowledged already."""
        async with self._lock:
            self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _deliver(self, batches: Iterator[_Request]) -> None:
        pause, deadline = _FIRST_PAUSE, time.monotonic() + self._patience
        while True:
            try:
                await self._exchange(batches)
                return
            except ModelyardError as error:
                self._hang_up()
                wait = max(pause, error.retry_delay or 0.0)
                if not is_passing(error) or time.monotonic() + wait > deadline:
                    self._outgoing.abandon()
                    raise
                await asyncio.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except BaseException:
                self._hang_up()
                self._outgoing.abandon()
                raise

    async def _exchange(self, batches: Iterator[_Request]) -> None:
        outgoing = self._outgoing
        try:
            stream = self._stream or await self._open()
            more = True
            while more or outgoing.pending:
                while more and len(outgoing.pending) < AHEAD:
                    batch = next(batches, None)
                    if batch is None:
                        more = False
                    else:
                        outgoing.add(batch)
                        await _write(stream, batch)
                if outgoing.pending:
                    answer = await stream.read()
                    if answer is grpc.aio.EOF:
                        await _raise_status(stream)
                    outgoing.acknowledged(answer.acknowledged_sequence)
        except grpc.RpcError as failure:
            raise error_from(failure, server=self._connection.settings.server) from failure

    async def _open(self) -> Any:
        answer = call(
            self._outgoing.position(),
            service.GetIngestPositionResponse,
            lambda response: response.acknowledged_sequence,
        )
        self._outgoing.resume(await self._connection.call(answer))
        self._channel = self._connection.channel
        method: Any = self._channel.stream_stream(*_METHOD)
        self._stream = method(
            timeout=_channel.STREAM_TIMEOUT,
            metadata=_channel.call_metadata(self._connection.settings),
        )
        for request in self._outgoing.pending:
            await _write(self._stream, request)
        return self._stream

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


async def _write(stream: Any, request: _Request) -> None:
    # A stream that ended refuses writes before it has said why: reading tells.
    with suppress(asyncio.InvalidStateError):
        await stream.write(request)


async def _raise_status(stream: Any) -> None:
    code = await stream.code()
    if code is grpc.StatusCode.OK:
        raise _ended()
    leading, trailing = await stream.initial_metadata(), await stream.trailing_metadata()
    raise grpc.aio.AioRpcError(code, leading, trailing, await stream.details())


def _ended() -> ModelyardError:
    return UnavailableError("the server ended the stream")
