"""Files over HTTP, for tools that only speak URLs: GET and HEAD, with ranges (RFC 9110).

`/files/{project}/{artifact}/{path}` is read with a link's token in the query, or
with the suite's own credential as a bearer token. A file never changes, so its
SHA-256 is its entity tag for ever.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import web

from services.artifact.depot import Depot
from services.artifact.domain import offset_out_of_range
from services.artifact.http.server import HttpServer
from services.artifact.links.linking import Links
from services.artifact.manifest import ManifestEntry
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
from services.common.rpc import status

_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "OUT_OF_RANGE": 416,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
}
STORED_BYTES = {
    "Content-Type": "application/octet-stream",
    # Stored bytes are anyone's: no browser may take them for a page of ours.
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of an answer that carries what somebody stored."""
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


class HttpReads:
    """Answers requests for files."""

    def __init__(
        self, server: HttpServer, *, depot: Depot, links: Links, authenticator: Authenticator
    ) -> None:
        self._server = server
        self._depot = depot
        self._links = links
        self._authenticator = authenticator

    def routes(self) -> list[web.RouteDef]:
        """Return what it answers."""
        return [web.get("/files/{project}/{artifact}/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._file(request)
        except ServiceError as error:
            return refusal(error)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        values = request.match_info
        name = ArtifactName.parse(f"projects/{values['project']}/artifacts/{values['artifact']}")
        path = values["path"]
        await self._server.ask(self._admit(request, name, path))
        entry, _ = await self._server.ask(self._depot.open_file(name, path, offset=0, limit=1))
        tag = f'"{entry.sha256}"'
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers={"ETag": tag})
        part = _range(request, entry, tag)
        wanted = range(entry.size) if part is None else part
        headers, code = _headers(entry, tag, wanted), 200
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{entry.size}"
            code = 206
        if request.method == "HEAD" or not wanted:
            return web.Response(status=code, headers=headers)
        _, pieces = await self._server.ask(
            self._depot.open_file(name, path, offset=wanted.start, limit=len(wanted))
        )
        response = web.StreamResponse(status=code, headers=headers)
        try:
            # The first piece is verified before the answer says that all is well.
            piece = await self._server.ask(_next(pieces))
            await response.prepare(request)
            with _begun():
                while piece is not None:
                    await response.write(piece)
                    piece = await self._server.ask(_next(pieces))
        finally:
            await self._server.ask(_closed(pieces))
        return response

    async def _admit(self, request: web.Request, name: ArtifactName, path: str) -> None:
        """Let in who has a link's token or the right to read."""
        token = request.query.get("token", "")
        if token:
            await self._links.check(token[:MAX_CREDENTIAL], name, path)
            return
        identity = await self._authenticator.introspect(credential_of(request))
        identity.require(Right.READ, name.project)


def credential_of(request: web.Request) -> str:
    """Return the credential that a request came with.

    Raises:
        ServiceError: INVALID_CREDENTIAL without one.
    """
    credential = bearer(request.headers.get(CREDENTIAL, ""))
    if not credential:
        raise invalid_credential()
    return credential


def refusal(error: ServiceError) -> web.Response:
    """Write what a caller is told of an error."""
    code = _STATUSES.get(status.code_of(error).name, 500)
    body = {"reason": error.reason.value, "message": error.message}
    headers = {"WWW-Authenticate": "Bearer"} if code == 401 else {}
    return web.json_response(body, status=code, headers=headers)


def _range(request: web.Request, entry: ManifestEntry, tag: str) -> range | None:
    """Return which part is wanted; None for all, unless one range of this very file is asked for.

    Raises:
        ServiceError: OFFSET_OUT_OF_RANGE.
    """
    match = _RANGE.fullmatch(request.headers.get("Range", ""))
    if match is None or request.headers.get("If-Range", tag) != tag or request.method != "GET":
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
    return STORED_BYTES | {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, immutable",
        "Content-Length": str(len(wanted)),
        "ETag": tag,
    }


@contextmanager
def _begun() -> Iterator[None]:
    """Let errors close the connection: an answer that began cannot be refused, only end short.

    A second answer would be taken for the rest of the file.
    """
    try:
        yield
    except ServiceError as error:
        raise ConnectionAbortedError(error.reason.value) from error


async def _next(pieces: AsyncIterator[memoryview]) -> memoryview | None:
    return await anext(pieces, None)


async def _closed(pieces: AsyncIterator[memoryview]) -> None:
    if isinstance(pieces, AsyncGenerator):
        await pieces.aclose()
