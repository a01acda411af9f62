"""Signed words: what this service said itself, and lets itself be reminded of, for a while.

They are JWTs (RFC 7519) with HS256, and nothing else is accepted. Each is of a kind, so that one
that was made for one purpose is worth nothing for another.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from services.artifact.links import tokens_store
from services.common.auth import invalid_credential
from services.common.sql.database import Database

_ALGORITHM = "HS256"
_KEY_BYTES = 32


class Tokens:
    """Signs claims with the installation's key, and reads them back."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._key: OctKey | None = None

    async def sign(self, kind: str, claims: Mapping[str, str], until: datetime) -> str:
        """Sign claims that hold until a moment."""
        header = {"alg": _ALGORITHM, "typ": kind}
        dated = {**claims, "exp": int(until.timestamp())}
        return jwt.encode(header, dated, await self._secret(), algorithms=[_ALGORITHM])

    async def read(self, kind: str, token: str) -> Mapping[str, Any]:
        """Return what a token of a kind says.

        Raises:
            ServiceError: INVALID_CREDENTIAL when it is another, or not valid any more.
        """
        try:
            found = jwt.decode(token, await self._secret(), algorithms=[_ALGORITHM])
        except (JoseError, ValueError, TypeError):
            raise invalid_credential() from None
        claims: Mapping[str, Any] = found.claims
        if found.header.get("typ") != kind or claims["exp"] <= self._clock().timestamp():
            raise invalid_credential()
        return claims

    async def _secret(self) -> OctKey:
        if self._key is None:
            made = secrets.token_bytes(_KEY_BYTES)
            secret = await self._database.write(
                lambda tx: tokens_store.keep_key(tx.connection, made)
            )
            self._key = OctKey.import_key(secret)
        return self._key
