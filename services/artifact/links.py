"""Links: signed words that let whoever has them read some files of one artifact, for a while.

A link's token is a JWT (RFC 7519) with HS256, and nothing else is accepted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from services.artifact import links_store
from services.artifact.depot import Depot
from services.artifact.manifest import check_path
from services.common.auth import invalid_credential
from services.common.database import Database
from services.common.errors import not_found, wrong_state
from services.common.names import ArtifactName

LONGEST = timedelta(days=1)
USUAL = timedelta(minutes=15)
_ALGORITHM = "HS256"
_TYPE = "modelyard-link+jwt"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Link:
    """A URL, and until when it is valid."""

    url: str
    expire_time: datetime


class Links:
    """Makes links, and says what those it made let read."""

    def __init__(
        self,
        *,
        database: Database,
        depot: Depot,
        clock: Callable[[], datetime],
        base: str,
    ) -> None:
        self._database = database
        self._depot = depot
        self._clock = clock
        self._base = base
        self._key: OctKey | None = None

    async def create(self, name: ArtifactName, path: str, lifetime: timedelta) -> Link:
        """Make a link to a file, or to a folder (a path with `/` at its end, or none).

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PATH; WRONG_STATE without an HTTP address.
        """
        if not self._base:
            message = (
                "this installation serves no files over HTTP; MODELYARD_ARTIFACT_HTTP_LISTEN, such "
                "as 127.0.0.1:7081, says where it does"
            )
            raise wrong_state(name, "NO_HTTP", message)
        is_folder = not path or path.endswith("/")
        if path:
            check_path(path.removesuffix("/"))
        manifest = await self._depot.manifest(name)
        found = manifest.page(prefix=path, after=None, limit=1)
        if not (found if is_folder else manifest.find(path)):
            raise not_found(f"{name}/{path}")
        expire_time = (self._clock() + lifetime).replace(microsecond=0)
        claims = {"sub": str(name), "path": path, "exp": int(expire_time.timestamp())}
        header = {"alg": _ALGORITHM, "typ": _TYPE}
        token = jwt.encode(header, claims, await self._secret(), algorithms=[_ALGORITHM])
        shown = quote(path) + ("{path}" if is_folder else "")
        place = f"{self._base}/files/{name.project}/{name.artifact}/{shown}"
        return Link(f"{place}?token={token}", expire_time)

    async def check(self, token: str, name: ArtifactName, path: str) -> None:
        """Refuse a token that does not let read a file now.

        Raises:
            ServiceError: INVALID_CREDENTIAL.
        """
        try:
            found = jwt.decode(token, await self._secret(), algorithms=[_ALGORITHM])
        except (JoseError, ValueError, TypeError):
            raise invalid_credential() from None
        claims = found.claims
        if found.header.get("typ") != _TYPE or claims["exp"] <= self._clock().timestamp():
            raise invalid_credential()
        allowed = str(claims["path"])
        is_folder = not allowed or allowed.endswith("/")
        reads = path.startswith(allowed) if is_folder else path == allowed
        if claims["sub"] != str(name) or not reads:
            raise invalid_credential()

    async def _secret(self) -> OctKey:
        if self._key is None:
            made = secrets.token_bytes(_KEY_BYTES)
            secret = await self._database.write(
                lambda tx: links_store.keep_key(tx.connection, made)
            )
            self._key = OctKey.import_key(secret)
        return self._key
