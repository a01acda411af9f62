"""A server in front of another that has too much to do for the first calls of each method."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import grpc

from services.common.errors import Reason, ServiceError
from services.common.rpc import status

WAIT_SECONDS = 0.05
PASSED_ON = {"authorization", "traceparent"}
NONE: Mapping[str, int] = MappingProxyType({})


class Busy(grpc.GenericRpcHandler):
    """Refuses the first calls as the services do, and passes the others on, byte by byte.

    Args:
        channel: to whom they are passed on.
        first: how many of each method are refused.
        of: how many of those that are named here, by their own names.
        anew: after a call of this one has passed, the first calls of all others are refused again.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        first: int,
        of: Mapping[str, int] = NONE,
        anew: str = "",
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._lately: Counter[str] = Counter()
        self._channel, self._first, self._of, self._anew = channel, first, of, anew

    def service(self, handler_call_details: Any) -> Any:
        """Take every call for one of streams: on the wire they are the same."""
        return grpc.stream_stream_rpc_method_handler(
            partial(self._call, str(handler_call_details.method))
        )

    async def _call(self, method: str, requests: AsyncIterator[bytes], context: Any) -> Any:
        name = method.rpartition("/")[2]
        if self._lately[name] < self._of.get(name, self._first):
            self._lately[name] += 1
            self.refused[name] += 1
            error = busy()
            await context.abort(
                status.code_of(error), error.message, trailing_metadata=status.trailers(error)
            )
        if name == self._anew:
            self._lately = Counter({name: self._lately[name]})
        metadata = [pair for pair in context.invocation_metadata() if pair[0] in PASSED_ON]
        pass_on: Any = self._channel.stream_stream(method)
        call = pass_on(requests, metadata=metadata, timeout=context.time_remaining())
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            trailers = tuple(error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailing_metadata=trailers)


def busy() -> ServiceError:
    """Say what a service says that has too much to do."""
    return ServiceError(Reason.LIMIT_EXCEEDED, "try again later", retry_seconds=WAIT_SECONDS)


@asynccontextmanager
async def serving_busy(
    address: str, *, first: int, of: Mapping[str, int] = NONE, anew: str = ""
) -> AsyncIterator[tuple[str, Busy]]:
    """Serve before another; yield the address, and what counts the refusals."""
    server = grpc.aio.server()
    async with grpc.aio.insecure_channel(address) as channel:
        front = Busy(channel, first=first, of=of, anew=anew)
        server.add_generic_rpc_handlers((front,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}", front
        finally:
            await server.stop(None)
