"""Files over HTTP, for tools that only speak URLs: GET and HEAD, with ranges (RFC 9110).

`/files/{project}/{artifact}/{path}` is read with a link's token in the query, or
with the suite's own credential as a bearer token. A file never changes, so its
SHA-256 is its entity tag for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from services.artifact.depot import Depot
from services.artifact.domain import offset_out_of_range
from services.artifact.links import Links
from services.artifact.manifest import ManifestEntry
from services.common import status
from services.common.auth import (
    CREDENTIAL,
    MAX_CREDENTIAL,
    Authenticator,
    Right,
    bearer,
    invalid_credential,
)
from services.common.errors import ServiceError
from services.common.names import ArtifactName
from services.common.safe_start import is_loopback
from services.common.settings import SettingsError

_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "OUT_OF_RANGE": 416,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_DRAIN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where files are served over HTTP; an empty `listen` is nowhere."""

    listen: str
    tls_certificate: str
    tls_key: str


class HttpReads:
    """Serves files over HTTP for as long as the service runs."""

    def __init__(
        self, settings: HttpSettings, *, depot: Depot, authenticator: Authenticator
    ) -> None:
        self._settings = settings
        self._depot = depot
        self._authenticator = authenticator
        self._links: Links | None = None
        self._listener = _listen(settings) if settings.listen else None

    @property
    def address(self) -> str:
        """Return where it listens, as a URL; empty when it does not."""
        if self._listener is None:
            return ""
        scheme = "https" if self._settings.tls_certificate else "http"
        host = self._settings.listen.rpartition(":")[0]
        return f"{scheme}://{host}:{self._listener.getsockname()[1]}"

    async def run_forever(self, links: Links) -> None:
        """Serve until cancelled."""
        if self._listener is None:
            return
        self._links = links
        route = Route("/files/{project}/{artifact}/{path:path}", self._answer)
        server = _Server(
            uvicorn.Config(
                Router(routes=[route], redirect_slashes=False),
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                ssl_certfile=self._settings.tls_certificate or None,
                ssl_keyfile=self._settings.tls_key or None,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[self._listener]))
        try:
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            await serving

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._file(request)
        except ServiceError as error:
            code = _STATUSES.get(status.code_of(error).name, 500)
            body = {"reason": error.reason.value, "message": error.message}
            headers = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
            return JSONResponse(body, status_code=code, headers=headers)

    async def _file(self, request: Request) -> Response:
        values = request.path_params
        name = ArtifactName.parse(f"projects/{values['project']}/artifacts/{values['artifact']}")
        await self._admit(request, name, values["path"])
        entry, _ = await self._depot.open_file(name, values["path"], offset=0, limit=1)
        tag = f'"{entry.sha256}"'
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"ETag": tag})
        part = _range(request, entry, tag)
        wanted = range(entry.size) if part is None else part
        headers, code = _headers(entry, tag, wanted), 200
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{entry.size}"
            code = 206
        if request.method == "HEAD" or not wanted:
            return Response(status_code=code, headers=headers)
        _, pieces = await self._depot.open_file(
            name, values["path"], offset=wanted.start, limit=len(wanted)
        )
        # The first piece is verified before the answer says that all is well.
        first = await anext(pieces)
        return StreamingResponse(_chained(first, pieces), status_code=code, headers=headers)

    async def _admit(self, request: Request, name: ArtifactName, path: str) -> None:
        """Let in who has a link's token or the right to read."""
        token = request.query_params.get("token", "")
        credential = bearer(request.headers.get(CREDENTIAL, ""))
        if token and self._links is not None:
            await self._links.check(token[:MAX_CREDENTIAL], name, path)
        elif credential:
            identity = await self._authenticator.introspect(credential)
            identity.require(Right.READ, name.project)
        else:
            raise invalid_credential()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(settings: HttpSettings) -> socket.socket:
    if not settings.tls_certificate and not is_loopback(settings.listen):
        raise SettingsError(f"{settings.listen} is a public address: it needs a TLS certificate")
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, int(port)), family=family, backlog=128)
    listener.setblocking(False)
    return listener


def _range(request: Request, entry: ManifestEntry, tag: str) -> range | None:
    """Return which part is wanted; None for all, unless one range of this very file is asked for.

    Raises:
        ServiceError: OFFSET_OUT_OF_RANGE.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", tag) != tag or request.method != "GET":
        return None
    first, last = match.groups()
    if not (first or last) or (first and last and int(last) < int(first)):
        return None  # a range that is none is ignored
    if first:
        found = range(int(first), min(int(last) + 1 if last else entry.size, entry.size))
    else:
        found = range(max(entry.size - int(last), 0), entry.size)
    if not found:
        raise offset_out_of_range(found.start, entry.size)
    return found


def _headers(entry: ManifestEntry, tag: str, wanted: range) -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, immutable",
        "Content-Length": str(len(wanted)),
        "Content-Type": "application/octet-stream",
        # Stored bytes are anyone's: no browser may take them for a page of ours.
        "Content-Security-Policy": "sandbox",
        "X-Content-Type-Options": "nosniff",
        "ETag": tag,
    }


async def _chained(first: memoryview, rest: AsyncIterator[memoryview]) -> AsyncIterator[bytes]:
    yield bytes(first)
    async for piece in rest:
        yield bytes(piece)
