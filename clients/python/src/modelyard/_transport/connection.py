"""Carrying out calls: one connection for blocking programs, one for asyncio.

Both do the same with the same descriptions; the difference is who waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from modelyard._transport import channel as _channel
from modelyard._transport.calls import (
    Call,
    Command,
    Download,
    Flow,
    Pages,
    Parallel,
    Pause,
    Trusted,
    Upload,
    Work,
    path_of,
)
from modelyard._transport.config import ConnectionSettings
from modelyard._transport.parallel import Scope, run_tasks, run_threads
from modelyard._transport.resume import Follow
from modelyard._transport.status import error_from
from modelyard.errors import CancelledError, ModelyardError

T = TypeVar("T")

_Step = Callable[[], Command]


class Connection:
    """Carries out calls one after another, blocking the caller."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        timeout: float,
        line: _channel.Line[grpc.Channel] | None = None,
        scope: Scope | None = None,
    ) -> None:
        self.settings = settings
        self.timeout = timeout
        self._line = line or _channel.Line(settings, _channel.open_channel)
        self._scope = scope or Scope()

    def with_timeout(self, timeout: float) -> Connection:
        """Return a connection over the same channel with another default deadline."""
        return Connection(self.settings, timeout=timeout, line=self._line)

    def _within(self, scope: Scope) -> Connection:
        """Return a connection over the same channel whose calls end with a scope."""
        return Connection(self.settings, timeout=self.timeout, line=self._line, scope=scope)

    @property
    def channel(self) -> grpc.Channel:
        """The channel for the next call, which is to hold it: see `Line`."""
        return self._line.channel

    def close(self) -> None:
        """End all calls, and have no more."""
        self._line.close()

    def call(self, wanted: Call[T]) -> T:
        """Make a unary call and return what its description picks of the response."""
        channel = self.channel
        method = channel.unary_unary(*_unary(wanted.request, wanted.response.FromString))
        options = self._options(_deadline(wanted, self.timeout))
        try:
            if self._scope.is_root:
                response = method(wanted.request, **options)
            else:
                running = method.future(wanted.request, **options)
                with self._scope.ending(running.cancel):
                    response = running.result()
        except grpc.RpcError as failure:
            raise error_from(failure, server=self.settings.server) from failure
        except grpc.FutureCancelledError as failure:
            raise CancelledError("the call was cancelled") from failure
        return wanted.pick(response)

    def pages(self, wanted: Pages[T]) -> Iterator[T]:
        """Read a list page by page, each when its first item is wanted."""
        token, more = "", True
        while more:
            items, token = self.call(wanted.page(token))
            yield from items
            more = bool(token)

    def follow(self, follow: Follow[T]) -> Iterator[T]:
        """Follow a stream, opening it again where it broke."""
        while not follow.done:
            try:
                for message in self._stream(
                    follow.request, follow.response.FromString, follow.timeout
                ):
                    yield from follow.received(message)
                    if follow.done:
                        return
                delay = follow.closed()
            except ModelyardError as error:
                delay = follow.failed(error)
            if not follow.done:
                time.sleep(delay)

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow's commands and return its result."""
        step: _Step = flow.__next__
        try:
            while True:
                step = self._perform(step(), flow)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    def _perform(self, command: Command, flow: Flow[Any]) -> _Step:
        try:
            answer = self._carry_out(command)
        except ModelyardError as error:
            return _thrower(flow, error)
        return _sender(flow, answer)

    def _carry_out(self, command: Command) -> object:
        match command:
            case Call():
                answer: object = self.call(command)
                return answer
            case Download():
                for message in self._stream(command.request, command.read, _channel.STREAM_TIMEOUT):
                    command.sink(message)
            case Upload():
                self._upload(command)
            case Follow():
                for _ in self.follow(command):
                    pass
            case Pause():
                self._scope.pause(command.seconds)
            case Work():
                return self._work(command)
            case Trusted():
                return self._line.authorities
            case Parallel():
                return run_threads(
                    command, self._scope, lambda scope, flow: self._within(scope).run(flow)
                )
        return None

    def _stream(
        self, request: Message, read: Callable[[bytes], Any], timeout: float
    ) -> Iterator[Any]:
        channel = self.channel
        method: Any = channel.unary_stream(*_unary(request, read))
        stream = method(request, **self._options(timeout))
        try:
            with self._scope.ending(stream.cancel):
                yield from stream
        except grpc.RpcError as failure:
            raise error_from(failure, server=self.settings.server) from failure
        finally:
            stream.cancel()

    def _upload(self, upload: Upload) -> None:
        channel = self.channel
        method = channel.stream_stream(
            path_of(upload.request), _serialised, upload.response.FromString
        )
        stream = method(self._ready(upload.requests), **self._options(_channel.STREAM_TIMEOUT))
        try:
            with self._scope.ending(stream.cancel):
                for message in stream:
                    upload.sink(message)
        except grpc.RpcError as failure:
            raise upload.failed() or error_from(failure, server=self.settings.server) from failure
        finally:
            stream.cancel()

    def _work(self, command: Work[T]) -> T:
        with self._scope.ending(command.cancel):
            result = command.work()
        self._scope.pause(0)  # what was cut short has no result
        return result

    def _ready(self, requests: Iterator[Message | bytes | Pause]) -> Iterator[Message | bytes]:
        for request in requests:
            if not isinstance(request, Pause):
                yield request
            elif self._scope.ends_within(request.seconds):
                return  # the stream is being cancelled

    def _options(self, timeout: float) -> dict[str, Any]:
        return {"timeout": timeout, "metadata": _channel.call_metadata(self.settings)}


class AsyncConnection:
    """Carries out calls in asyncio; what blocks on disks runs in a thread."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        timeout: float,
        line: _channel.Line[grpc.aio.Channel] | None = None,
    ) -> None:
        self.settings = settings
        self.timeout = timeout
        self._line = line or _channel.Line(settings, _channel.open_async_channel)

    def with_timeout(self, timeout: float) -> AsyncConnection:
        """Return a connection over the same channel with another default deadline."""
        return AsyncConnection(self.settings, timeout=timeout, line=self._line)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel for the next call, which is to hold it: see `Line`."""
        return self._line.channel

    async def close(self) -> None:
        """End all calls, and have no more."""
        await asyncio.gather(*self._line.close())

    async def call(self, wanted: Call[T]) -> T:
        """Make a unary call and return what its description picks of the response."""
        channel = self.channel
        method: Any = channel.unary_unary(*_unary(wanted.request, wanted.response.FromString))
        try:
            response = await method(
                wanted.request, **self._options(_deadline(wanted, self.timeout))
            )
        except grpc.RpcError as failure:
            raise error_from(failure, server=self.settings.server) from failure
        return wanted.pick(response)

    async def pages(self, wanted: Pages[T]) -> AsyncIterator[T]:
        """Read a list page by page, each when its first item is wanted."""
        token, more = "", True
        while more:
            items, token = await self.call(wanted.page(token))
            for item in items:
                yield item
            more = bool(token)

    async def follow(self, follow: Follow[T]) -> AsyncIterator[T]:
        """Follow a stream, opening it again where it broke."""
        while not follow.done:
            try:
                stream = self._stream(follow.request, follow.response.FromString, follow.timeout)
                async with aclosing(stream):
                    async for message in stream:
                        for item in follow.received(message):
                            yield item
                        if follow.done:
                            return
                delay = follow.closed()
            except ModelyardError as error:
                delay = follow.failed(error)
            if not follow.done:
                await asyncio.sleep(delay)

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow's commands and return its result."""
        step: _Step = flow.__next__
        try:
            while True:
                ended, value = await _in_thread(_advance, step)
                if ended:
                    result: T = value
                    return result
                step = await self._perform(value, flow)
        finally:
            flow.close()

    async def _perform(self, command: Command, flow: Flow[Any]) -> _Step:
        try:
            answer = await self._carry_out(command)
        except ModelyardError as error:
            return _thrower(flow, error)
        return _sender(flow, answer)

    async def _carry_out(self, command: Command) -> object:
        match command:
            case Call():
                answer: object = await self.call(command)
                return answer
            case Download():
                stream = self._stream(command.request, command.read, _channel.STREAM_TIMEOUT)
                async with aclosing(stream):
                    async for message in stream:
                        await _in_thread(command.sink, message)
            case Upload():
                await self._upload(command)
            case Follow():
                async for _ in self.follow(command):
                    pass
            case Pause():
                await asyncio.sleep(command.seconds)
            case Work():
                return await _in_thread(command.work, cancel=command.cancel)
            case Trusted():
                return self._line.authorities
            case Parallel():
                return await run_tasks(command, self.run, _in_thread)
        return None

    async def _stream(
        self,
        request: Message,
        read: Callable[[bytes], Any],
        timeout: float,  # noqa: ASYNC109  # the stream's, which gRPC watches
    ) -> AsyncGenerator[Any, None]:
        channel = self.channel
        method: Any = channel.unary_stream(*_unary(request, read))
        stream = method(request, **self._options(timeout))
        try:
            async for message in stream:
                yield message
        except grpc.RpcError as failure:
            raise error_from(failure, server=self.settings.server) from failure
        finally:
            stream.cancel()

    async def _upload(self, upload: Upload) -> None:
        channel = self.channel
        method: Any = channel.stream_stream(
            path_of(upload.request), _serialised, upload.response.FromString
        )
        stream = method(_ready(upload.requests), **self._options(_channel.STREAM_TIMEOUT))
        try:
            async for message in stream:
                upload.sink(message)
        except grpc.RpcError as failure:
            raise upload.failed() or error_from(failure, server=self.settings.server) from failure
        finally:
            stream.cancel()

    def _options(self, timeout: float) -> dict[str, Any]:
        return {"timeout": timeout, "metadata": _channel.call_metadata(self.settings)}


def _unary(request: Message, read: Callable[[bytes], Any]) -> tuple[str, Any, Any]:
    kind = type(request)
    return path_of(kind), kind.SerializeToString, read


def _serialised(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


def _deadline(wanted: Call[Any], default: float) -> float:
    # Calls about bytes take long by nature; a caller who asks for more still gets it.
    return default if wanted.timeout is None else max(wanted.timeout, default)


def _sender(flow: Flow[Any], answer: object) -> _Step:
    return lambda: flow.send(answer)


def _thrower(flow: Flow[Any], error: ModelyardError) -> _Step:
    return lambda: flow.throw(error)


def _advance(step: _Step) -> tuple[bool, Any]:
    # A StopIteration cannot pass through a future.
    try:
        return False, step()
    except StopIteration as end:
        return True, end.value


async def _in_thread(
    work: Callable[..., T], *arguments: object, cancel: Callable[[], object] = lambda: None
) -> T:
    # A thread cannot be interrupted: on cancellation its step is awaited first, however often
    # that is cancelled, so that nothing still uses the flow when it is closed.
    task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel()
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        raise


async def _ready(
    requests: Iterator[Message | bytes | Pause],
) -> AsyncIterator[Message | bytes]:
    while (request := await asyncio.to_thread(next, requests, None)) is not None:
        if isinstance(request, Pause):
            await asyncio.sleep(request.seconds)
        else:
            yield request
