"""The service's HTTP server: aiohttp in a thread of its own, so that bytes leave gRPC's loop alone.

Its loop is asyncio's own, not the service's: that one has no `sendfile`, by which the kernel copies
files to sockets. What handlers ask of the service's other parts, they ask on the service's loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError, web
from aiohttp.http import HttpProcessingError

from services.artifact.http.door import HttpBounds, HttpDoor, bound_stillness
from services.common.rpc.certificates import server_context
from services.common.safe_start import is_loopback
from services.common.settings import SettingsError

_DRAIN_SECONDS = 10
_ANYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - to tell them, not to listen there

T = TypeVar("T")

_log = logging.getLogger(__name__)
_log.addFilter(lambda record: not _is_callers_fault(record))


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where HTTP is served; an empty `listen` is nowhere."""

    listen: str
    tls_certificate: str
    tls_key: str
    url: str
    """By which URL it is reached where it listens; empty: by its address."""
    bounds: HttpBounds = field(default_factory=HttpBounds)


class HttpServer:
    """Serves routes for as long as the service runs."""

    def __init__(self, settings: HttpSettings) -> None:
        _check_url(settings.url)
        self._settings = settings
        self._tls = _tls(settings)
        self._listener = _listen(settings) if settings.listen else None
        self._home: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        """Return the URL by which it is reached, without a slash; empty when none is known."""
        if self._listener is None:
            return ""
        if self._settings.url:
            return self._settings.url.rstrip("/")
        host = self._settings.listen.rpartition(":")[0]
        if host.strip("[]") in _ANYWHERE:
            return ""
        scheme = "https" if self._settings.tls_certificate else "http"
        return f"{scheme}://{host}:{self._listener.getsockname()[1]}"

    async def ask(self, wanted: Coroutine[Any, Any, T]) -> T:
        """Have the service's loop do something for a handler."""
        if self._home is None:
            raise RuntimeError("handlers run while the server does")
        return await _elsewhere(self._home, wanted)

    async def run_forever(self, routes: Sequence[web.RouteDef]) -> None:
        """Serve until cancelled."""
        if self._listener is None:
            return
        self._home = asyncio.get_running_loop()
        with _loop_of_a_thread() as loop:
            ends = await _elsewhere(loop, self._start(self._listener, routes))
            try:
                await self._home.create_future()
            finally:
                await _elsewhere(loop, ends.aclose())

    async def _start(
        self, listener: socket.socket, routes: Sequence[web.RouteDef]
    ) -> AsyncExitStack:
        """Serve from now on; return what ends it."""
        bounds = self._settings.bounds
        door = HttpDoor(bounds)
        app = web.Application(middlewares=[door.note])
        app.add_routes(routes)
        app.on_response_prepare.append(_without_server_name)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=_log,
            shutdown_timeout=_DRAIN_SECONDS,
            keepalive_timeout=bounds.idle_seconds,
        )
        await runner.setup()
        server = runner.server
        assert server is not None  # noqa: S101 - it was set up
        listening = await asyncio.get_running_loop().create_server(
            partial(door.admit, server),
            sock=listener,
            ssl=self._tls,
            ssl_handshake_timeout=bounds.handshake_seconds if self._tls else None,
        )
        ends = AsyncExitStack()
        ends.push_async_callback(runner.cleanup)
        ends.callback(listening.close)
        ends.callback(asyncio.create_task(door.clear(server)).cancel)
        return ends


def _is_callers_fault(record: logging.LogRecord) -> bool:
    """Say whether what is to be logged is that somebody sent what is no HTTP, or went away."""
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(
        error, HttpProcessingError | ClientConnectionError | ConnectionError | TimeoutError
    )


async def _without_server_name(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)


async def _elsewhere(loop: asyncio.AbstractEventLoop, wanted: Coroutine[Any, Any, T]) -> T:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(wanted, loop))


@contextmanager
def _loop_of_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever, name="artifact-http", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _check_url(url: str) -> None:
    """Refuse a URL by which bytes, and tokens that let read them, cross a network in clear."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise SettingsError(f"{url} is no URL") from None
    if url and (parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment):
        raise SettingsError(f"{url} is no URL as https://files.example.com is")
    if parts.scheme == "http" and not is_loopback(f"{host}:"):
        raise SettingsError(f"{url} is reached over a network: it must begin with https://")


def _tls(settings: HttpSettings) -> ssl.SSLContext | None:
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise SettingsError("a TLS certificate and its key go together, for HTTP too")
    if not settings.tls_certificate:
        return None
    return server_context(settings.tls_certificate, settings.tls_key)


def _listen(settings: HttpSettings) -> socket.socket:
    if not settings.tls_certificate and not is_loopback(settings.listen):
        raise SettingsError(f"{settings.listen} is a public address: it needs a TLS certificate")
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, int(port)), family=family, backlog=128)
    listener.setblocking(False)
    bound_stillness(listener, settings.bounds)
    if is_loopback(settings.listen):
        _trust_the_way(listener)
    return listener


def _trust_the_way(listener: socket.socket) -> None:
    """Have nothing paced on a way that loses nothing: BBR, where it is the default, halves it."""
    if hasattr(socket, "TCP_CONGESTION"):
        with suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
