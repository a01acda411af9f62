"""Packs on disk over HTTP: who was granted one reads it, by ranges, and the kernel copies it.

What is read so is not verified here: whoever reads it verifies it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from services.artifact.blobs import VALID, Grant
from services.artifact.blobs.disk import DiskBlobs
from services.artifact.http.reads import STORED_BYTES, credential_of, refusal
from services.artifact.http.server import HttpServer
from services.artifact.links.tokens import Tokens
from services.common.auth import invalid_credential
from services.common.errors import ServiceError

_KIND = "modelyard-pack+jwt"
_HEADERS = STORED_BYTES | {"Cache-Control": "private"}


class PackGrants:
    """Signs requests to read packs over this service's own HTTP."""

    def __init__(self, *, tokens: Tokens, clock: Callable[[], datetime], base: str) -> None:
        self._tokens = tokens
        self._clock = clock
        self._base = base

    async def get(self, name: str) -> Grant:
        """Let a pack be read, whole or by ranges."""
        until = (self._clock() + VALID).replace(microsecond=0)
        token = await self._tokens.sign(_KIND, {"sub": name}, until)
        headers = {"Authorization": f"Bearer {token}"}
        return Grant("GET", f"{self._base}/packs/{name}", headers, until)

    async def check(self, token: str, name: str) -> None:
        """Refuse a token that does not let read a pack now.

        Raises:
            ServiceError: INVALID_CREDENTIAL.
        """
        claims = await self._tokens.read(_KIND, token)
        if claims["sub"] != name:
            raise invalid_credential()


class PackReads:
    """Answers granted requests."""

    def __init__(self, server: HttpServer, *, grants: PackGrants, blobs: DiskBlobs) -> None:
        self._server = server
        self._grants = grants
        self._blobs = blobs

    def routes(self) -> list[web.RouteDef]:
        """Return what it answers: nothing but names of packs gets to the folder."""
        return [web.get("/packs/{name:[0-9a-f]{32}}", self._answer, allow_head=False)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        try:
            await self._server.ask(self._grants.check(credential_of(request), name))
        except ServiceError as error:
            return refusal(error)
        return web.FileResponse(self._blobs.path(name), headers=_HEADERS)
