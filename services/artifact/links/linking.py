"""Links: signed words that let whoever has them read some files of one artifact, for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from services.artifact.depot import Depot
from services.artifact.links.tokens import Tokens
from services.artifact.manifest import check_path
from services.common.auth import invalid_credential
from services.common.errors import not_found, wrong_state
from services.common.names import ArtifactName

LONGEST = timedelta(days=1)
USUAL = timedelta(minutes=15)
_KIND = "modelyard-link+jwt"


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
        tokens: Tokens,
        depot: Depot,
        clock: Callable[[], datetime],
        base: str,
    ) -> None:
        self._tokens = tokens
        self._depot = depot
        self._clock = clock
        self._base = base

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
        token = await self._tokens.sign(_KIND, {"sub": str(name), "path": path}, expire_time)
        shown = quote(path) + ("{path}" if is_folder else "")
        place = f"{self._base}/files/{name.project}/{name.artifact}/{shown}"
        return Link(f"{place}?token={token}", expire_time)

    async def check(self, token: str, name: ArtifactName, path: str) -> None:
        """Refuse a token that does not let read a file now.

        Raises:
            ServiceError: INVALID_CREDENTIAL.
        """
        claims = await self._tokens.read(_KIND, token)
        allowed = str(claims["path"])
        is_folder = not allowed or allowed.endswith("/")
        reads = path.startswith(allowed) if is_folder else path == allowed
        if claims["sub"] != str(name) or not reads:
            raise invalid_credential()
