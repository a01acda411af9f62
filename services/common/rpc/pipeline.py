"""What stands around each handler: requests are parsed, the list of interceptors is run.

Requests are parsed here and not by grpcio, which answers UNKNOWN or INTERNAL to
bytes that are no message. All four kinds of RPC go the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from services.common.audit.noting import Note
from services.common.auth import CREDENTIAL, Call, enter_call
from services.common.errors import Reason, ServiceError
from services.common.rpc.draining import is_endless, stopping
from services.common.rpc.interceptors import (
    INTERCEPTORS,
    STREAM_SECONDS,
    UNARY_SECONDS,
    Chain,
    recheck,
)
from services.common.rpc.methods import Method
from services.common.rpc.refusing import Door
from services.common.rpc.texts import check_texts
from services.common.telemetry import MeasuredCall

Context = grpc.aio.ServicerContext[Any, Any]
_Handler = TypeVar("_Handler", bound=Callable[..., Any])
_READ = "_read_by"
_NO_TURN = "_without_turn"
_STEADY = "_steady"
_CANCEL_SECONDS = 0.1
"""How long after the end of a call's messages it may be told that the call was given up."""
if TYPE_CHECKING:  # grpc's own class takes no parameters at run time
    Handler = grpc.RpcMethodHandler[Any, Any]


def read_by(read: Callable[[bytes], Any]) -> Callable[[_Handler], _Handler]:
    """Mark a servicer's method whose requests are parsed by another function than protobuf's."""

    def mark(handler: _Handler) -> _Handler:
        setattr(handler, _READ, read)
        return handler

    return mark


def without_turn(handler: _Handler) -> _Handler:
    """Mark a servicer's method that holds no turn: it waits for something, or turns wait for it."""
    setattr(handler, _NO_TURN, True)
    return handler


def steady(handler: _Handler) -> _Handler:
    """Mark a servicer's method whose caller sends without a rest: one who does not is sent away."""
    setattr(handler, _STEADY, True)
    return handler


def wrapped(handler: Handler, method: Method, chain: Chain) -> Door:
    """Return a method's handler with the interceptors around it, and the door before it."""
    serialise = handler.response_serializer
    answer, answers = _unary_handler(handler), _stream_handler(handler)
    handles = answers if method.server_streaming else answer
    read = getattr(handles, _READ, None) or method.request_class.FromString
    if method.is_stream or getattr(answer, _NO_TURN, False):
        chain = replace(chain, turns=None)
    endless = method.server_streaming and is_endless(answers)
    if not getattr(handles, _STEADY, False):
        chain = replace(chain, message_seconds=None)

    async def unary(raw: Any, context: Context) -> Any:
        incoming = _Incoming(method, context, raw, read, chain)
        error: BaseException | None = None
        response: Any = b""
        try:
            request = await incoming.enter()
            response = await answer(request, context)
        except BaseException as raised:  # the interceptors decide
            error = raised
        await incoming.leave(error)
        return b"" if error is not None else response

    async def stream(raw: Any, context: Context) -> AsyncIterator[Any]:
        incoming = _Incoming(method, context, raw, read, chain)
        incoming.is_endless = endless
        error: BaseException | None = None
        try:
            request = await incoming.enter()
            async for response in answers(request, context):
                await incoming.check_again()
                incoming.is_sending = True
                yield response
                incoming.is_sending = False
                incoming.check_drain()
        except BaseException as raised:  # the interceptors decide
            error = raised
        await incoming.leave(error)

    # Whatever kind of RPC it is: of these kinds grpcio calls the handler before it has a request.
    # Of the others it waits for one, of whomever, until the caller's own deadline.
    streaming = method.server_streaming
    make = (
        grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler
    )
    complete: Handler = make(
        stream if streaming else unary,
        request_deserializer=None,
        response_serializer=lambda response: _serialised(response, serialise),
    )
    return Door(complete, method, chain)


def _serialised(response: Any, serialise: Callable[[Any], bytes] | None) -> bytes:
    """Pass bytes on as they are: stored messages need no second encoding."""
    if isinstance(response, bytes) or serialise is None:
        return bytes(response)
    return serialise(response)


def _unary_handler(handler: Any) -> Callable[[Any, Context], Awaitable[Any]]:
    found: Callable[[Any, Context], Awaitable[Any]] = handler.unary_unary or handler.stream_unary
    return found


def _stream_handler(handler: Any) -> Callable[[Any, Context], AsyncIterator[Any]]:
    found: Callable[[Any, Context], AsyncIterator[Any]] = (
        handler.unary_stream or handler.stream_stream
    )
    return found


class _Incoming:
    """One call on its way through the interceptors."""

    __slots__ = (
        "_chain",
        "_checked",
        "_entered",
        "_raw",
        "_read",
        "alarm",
        "call",
        "context",
        "first",
        "is_endless",
        "is_sending",
        "measured",
        "method",
        "note",
    )

    def __init__(
        self,
        method: Method,
        context: Context,
        raw: Any,
        read: Callable[[bytes], Any],
        chain: Chain,
    ) -> None:
        self.method = method
        self.context = context
        self.call = _call(method, context, chain)
        self._chain = chain
        self._checked = time.monotonic()
        self._raw = raw
        self._read = read
        self.first: Any = None
        self.note: Note | None = None
        self._entered = 0
        self.measured: MeasuredCall | None = None
        self.alarm: asyncio.Timeout | None = None
        self.is_endless = self.is_sending = False
        enter_call(self.call)

    async def enter(self) -> Any:
        """Pass every interceptor, in order; return what the handler takes."""
        for interceptor in INTERCEPTORS:
            await interceptor.enter(self._chain, self)
            self._entered += 1
        return self._stream() if self.method.client_streaming else await self.first_request()

    async def leave(self, error: BaseException | None) -> None:
        """Pass those that were entered, backwards; raise what none of them took."""
        for interceptor in reversed(INTERCEPTORS[: self._entered]):
            error = await interceptor.leave(self._chain, self, error)
        if error is not None:
            raise error

    async def check_again(self) -> None:
        """End a stream that outlived its credential or its right: looked at now and then."""
        now = time.monotonic()
        age = now - self._checked
        if age >= self._chain.recheck_seconds and await recheck(self._chain, self, age):
            self._checked = now

    def check_drain(self) -> None:
        """End a stream without end once the server stops."""
        if self.is_endless and self._chain.drain.begun:
            raise stopping()

    async def first_request(self) -> Any:
        """Return the first request message, parsed; a call that ends without one is refused."""
        if self.first is None:
            raw = await self._next()
            if raw is None:  # which is not b"", a message with nothing set
                raise await self._nothing_came()
            self.first = self._parse(raw)
        return self.first

    async def _nothing_came(self) -> ServiceError:
        """Say so; but to one that its caller gave up, which grpcio cancels a moment later."""
        await asyncio.sleep(_CANCEL_SECONDS)
        return ServiceError(Reason.MALFORMED_REQUEST, "the call ended without a request message")

    async def _stream(self) -> AsyncIterator[Any]:
        if self.first is not None:
            yield self.first
        while (raw := await self._next()) is not None:
            await self.check_again()
            yield self._parse(raw)

    async def _next(self) -> Any:
        """Return the bytes of a stream's next message; None after the last."""
        seconds = self._chain.message_seconds
        try:
            async with asyncio.timeout(seconds):
                return await anext(aiter(self._raw), None)
        except TimeoutError:
            message = f"the upload brought no message for {seconds or 0:g} seconds"
            raise ServiceError(Reason.DEADLINE_EXCEEDED, message) from None

    def _parse(self, raw: bytes) -> Any:
        try:
            request = self._read(raw)
        except DecodeError:
            message = "the request is not a valid message"
            raise ServiceError(Reason.MALFORMED_REQUEST, message) from None
        if not self.method.client_streaming and b"\0" in raw:
            check_texts(request)  # what comes in streams is checked as it is decoded
        return request


def _call(method: Method, context: Context, chain: Chain) -> Call:
    streaming = method.client_streaming or method.server_streaming
    maximum = STREAM_SECONDS if streaming else UNARY_SECONDS
    remaining = context.time_remaining()
    seconds = maximum if remaining is None else min(remaining, maximum)
    sent = context.invocation_metadata() or ()
    metadata = {key: value for key, value in sent if isinstance(value, str)}
    if len(metadata) < len(sent) and [key for key, _ in sent].count(CREDENTIAL) > 1:
        del metadata[CREDENTIAL]  # of two credentials none is taken: nobody knows whose call it is
    return Call(method.full_name, metadata, time.monotonic() + seconds, chain.drain)
