"""Who comes in by HTTP: so many connections, and none that rests for long.

The server shares its process, and what that may open, with gRPC.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler


@dataclass(frozen=True, slots=True)
class HttpBounds:
    """What connections may use up."""

    connections: int = 500
    """How many there are at once; one more is closed as soon as it is there."""
    idle_seconds: float = 75.0
    """How long one is kept between requests: longer than the usual 60 of those that reuse it."""
    still_seconds: float = 60.0
    """How long a reader may take nothing of an answer."""
    handshake_seconds: float = 10.0
    """How long TLS may take to begin."""


class HttpDoor:
    """Lets connections in to a server, and shows those out that never ask for anything."""

    def __init__(self, bounds: HttpBounds) -> None:
        self._bounds = bounds
        self._asked: set[web.RequestHandler] = set()

    @web.middleware
    async def note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Remember who asked for something: from then on aiohttp itself sees to who rests."""
        self._asked.add(request.protocol)
        return await handler(request)

    def admit(self, server: web.Server) -> asyncio.BaseProtocol:
        """Make what serves one more connection."""
        if len(server.connections) >= self._bounds.connections:
            return _Closed()
        return server()

    async def clear(self, server: web.Server) -> None:
        """Close connections that ask for nothing, until cancelled."""
        silent: set[web.RequestHandler] = set()
        while True:
            await asyncio.sleep(self._bounds.idle_seconds / 2)
            present = set(server.connections)
            self._asked &= present
            for connection in silent & present - self._asked:
                connection.force_close()
            silent = present - self._asked


def bound_stillness(listener: socket.socket, bounds: HttpBounds) -> None:
    """Have the kernel end connections whose reader takes nothing, where it can: `sendfile` waits.

    What is accepted inherits it.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(bounds.still_seconds * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


class _Closed(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()
