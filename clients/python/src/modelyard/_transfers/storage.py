"""Storage as a grant lets it be reached: one signed HTTP request at a time.

Where it cannot be reached from here, bytes go through the artifact service. MODELYARD_DIRECT=off
chooses that. Connections are kept; what is received goes from the socket to where it is wanted.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import (
    OK,
    PARTIAL_CONTENT,
    PRECONDITION_FAILED,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
)
from typing import NamedTuple
from urllib.parse import urlsplit

from modelyard._transport.config import trust
from modelyard.artifact.v1 import transfer_service_pb2 as service

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_AVOID_SECONDS = 60.0
_KEPT = 16
_SHORT_BYTES = 64 * 1024


class _Host(NamedTuple):
    """Where requests go, and who has to vouch for it."""

    scheme: str
    netloc: str
    authorities: bytes | None


_avoided: dict[_Host, float] = {}
_idle: defaultdict[_Host, list[HTTPConnection]] = defaultdict(list)
if hasattr(os, "register_at_fork"):  # no two processes may use one connection
    os.register_at_fork(after_in_child=_idle.clear)


def usable() -> bool:
    """Say whether bytes may go straight to storage as far as this process is concerned."""
    return os.environ.get("MODELYARD_DIRECT", "").lower() not in ("off", "0", "false")


class Errand:
    """Requests that one thread makes, one after the other, and that another may cut short.

    Storage is trusted by the authorities, in PEM, beside the system's.
    """

    def __init__(self, authorities: bytes | None) -> None:
        self._authorities = authorities
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_cancelled = False

    def cancel(self) -> None:
        """End the request that is under way, as one that did not get there, and all to come.

        One that is being connected ends when that does.
        """
        with self._lock:
            self._is_cancelled = True
            if self._socket is not None:
                _cut(self._socket)

    def put(self, grant: service.Grant, data: bytes | bytearray) -> bool:
        """Put an object; False when it did not get there, for whatever reason."""
        with self._asked(grant, {}, data) as answer:
            # One that is repeated because its answer was lost finds its own object there.
            return answer is not None and answer.status in (OK, PRECONDITION_FAILED)

    def get(
        self,
        grant: service.Grant,
        offset: int,
        lengths: Sequence[int],
        buffers: Iterator[memoryview],
    ) -> Generator[memoryview, None, None]:
        """Yield pieces of an object, one after the other; fewer when they did not all get here.

        Each is the beginning of the next buffer.
        """
        size = sum(lengths)
        wanted = {"Range": f"bytes={offset}-{offset + size - 1}"}
        with self._asked(grant, wanted, None) as answer:
            if answer is None or answer.status != PARTIAL_CONTENT or answer.length != size:
                return
            for length, buffer in zip(lengths, buffers, strict=False):
                piece = buffer[:length]
                try:
                    count = answer.readinto(piece)
                except TimeoutError:  # one that stands still would be waited for at every request
                    _avoid(_host(grant, self._authorities))
                    return
                except (OSError, HTTPException):
                    return
                if count < length or self._is_cancelled:
                    return
                yield piece

    @contextmanager
    def _asked(
        self, grant: service.Grant, more: dict[str, str], body: bytes | bytearray | None
    ) -> Iterator[HTTPResponse | None]:
        """Make a granted request; a host that does not answer is left alone for a while.

        One that cannot be named or asked at all is a host that does not answer.
        """
        host = _host(grant, self._authorities)
        kept = _idle[host]
        connection = response = None
        while response is None and not (self._is_cancelled or _is_avoided(host)):
            connection = _take(kept)
            is_new = connection is None
            try:
                connection = connection or _connection(host)
                self._begin(connection)
                connection.request(
                    grant.method, urlsplit(grant.url).path, body, {**grant.headers, **more}
                )
                response = connection.getresponse()
            except (OSError, HTTPException, ValueError) as error:
                self._end(connection)
                # A kept one may have been closed; one that was cut short says nothing of its host.
                if (is_new or isinstance(error, TimeoutError)) and not self._is_cancelled:
                    _avoid(host)
        try:
            yield response
        except BaseException:  # such as Ctrl-C: whatever is still to come is not waited for
            self._end(connection, response)
            raise
        if connection is not None and response is not None:
            self._finish(connection, response, kept)

    def _begin(self, connection: HTTPConnection) -> None:
        if connection.sock is None:
            connection.connect()
        with self._lock:
            if self._is_cancelled:
                raise ConnectionAbortedError
            # The connection itself forgets it when the answer is the last one.
            self._socket = connection.sock

    def _end(self, *used: HTTPConnection | HTTPResponse | None) -> None:
        with self._lock:
            self._socket = None
        for one in used:
            if one is not None:
                one.close()

    def _finish(
        self, connection: HTTPConnection, response: HTTPResponse, kept: list[HTTPConnection]
    ) -> None:
        """Keep a connection whose answer was read; what is short is read for that."""
        with suppress(OSError, HTTPException):
            if (response.length or 0) <= _SHORT_BYTES:
                response.read(_SHORT_BYTES)
        with self._lock:
            self._socket = None
            is_good = response.isclosed() and not self._is_cancelled
        if is_good and len(kept) < _KEPT:
            kept.append(connection)
        else:
            self._end(response, connection)


def _cut(line: socket.socket) -> None:
    """End what another thread sends or receives there; closing it would not."""
    with suppress(OSError):  # of one that was ended already
        # Below TLS, whose state is the other thread's.
        socket.socket.shutdown(line, socket.SHUT_RDWR)


def _host(grant: service.Grant, authorities: bytes | None) -> _Host:
    try:
        url = urlsplit(grant.url)
    except ValueError:  # of what is no URL; the request then says so
        return _Host("", "", authorities)
    return _Host(url.scheme, url.netloc, authorities)


def _avoid(host: _Host) -> None:
    _avoided[host] = time.monotonic() + _AVOID_SECONDS


def _is_avoided(host: _Host) -> bool:
    return _avoided.get(host, 0.0) >= time.monotonic()


def _take(kept: list[HTTPConnection]) -> HTTPConnection | None:
    try:
        return kept.pop()
    except IndexError:  # another thread may take the last one at any moment
        return None


def _connection(host: _Host) -> HTTPConnection:
    if host.scheme != "https":
        return _Http(host.netloc, timeout=_CONNECT_SECONDS)
    context = ssl.create_default_context()
    if host.authorities is not None:
        trust(context, host.authorities)
    return _Https(host.netloc, timeout=_CONNECT_SECONDS, context=context)


class _Http(HTTPConnection):
    """A connection that is slower to be given up than to be made."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_READ_SECONDS)


class _Https(HTTPSConnection):
    """The same with TLS."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_READ_SECONDS)
