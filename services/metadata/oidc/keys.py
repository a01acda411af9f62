"""An issuer's public keys: fetched when needed, kept for a while, fetched again for a new one.

A token with an unknown key makes the keys be fetched once more, but not more often than
every half minute: who invents key ids gets the issuer no calls.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import Any

import httpcore
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from services.common.auth import invalid_credential
from services.common.rpc.status import unanswered
from services.common.settings import SettingsError
from services.metadata.oidc.domain import Issuer, is_safe_url

logger = logging.getLogger(__name__)

FRESH_SECONDS = 900.0
STALE_SECONDS = 24 * 3_600.0
PAUSE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0
MAX_BYTES = 1024 * 1024
MAX_KEYS = 100
RSA_BITS = 2_048

PublicKey = RSAKey | ECKey | OKPKey


class UnreachableError(Exception):
    """An issuer did not answer, or not with what it should."""


_FAILURES = (
    UnreachableError,
    TimeoutError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
)


class Keys:
    """The keys of one issuer."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._http = httpcore.AsyncConnectionPool(ssl_context=_context(issuer.root_certificates))
        self._fetching = asyncio.Lock()
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched = self._tried = -STALE_SECONDS

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """Return the key that a token names.

        Raises:
            ServiceError: INVALID_CREDENTIAL when there is no such key for this algorithm;
                SERVICE_UNAVAILABLE when the issuer must be asked and does not answer.
        """
        if kid not in self._keys or time.monotonic() - self._fetched > FRESH_SECONDS:
            await self._refresh(kid)
        key = self._keys.get(kid)
        if key is None or key.alg not in (None, algorithm):
            raise invalid_credential()
        return key

    async def _refresh(self, kid: str | None) -> None:
        """Fetch the keys unless that was tried a moment ago."""
        asked = time.monotonic()
        async with self._fetching:
            if self._tried > asked or time.monotonic() - self._tried < PAUSE_SECONDS:
                self._refuse_stale()
                return
            try:
                self._keys = await self._fetch()
                self._fetched = time.monotonic()
            except _FAILURES as error:
                extra = {"issuer": self._issuer.issuer, "error": repr(error)}
                logger.warning("an issuer's keys cannot be fetched", extra=extra)
                self._refuse_stale(is_needed=kid not in self._keys)
            finally:
                self._tried = time.monotonic()

    def _refuse_stale(self, *, is_needed: bool = False) -> None:
        if is_needed or time.monotonic() - self._fetched > STALE_SECONDS:
            raise unanswered()

    async def _fetch(self) -> dict[str | None, PublicKey]:
        address = self._issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._get(address)
        keys = found.get("jwks_uri")
        if found.get("issuer") != self._issuer.issuer:
            raise UnreachableError(f"{address} describes another issuer")
        if not isinstance(keys, str) or not is_safe_url(keys):
            raise UnreachableError(f"{address} names no https address of keys")
        return _usable((await self._get(keys)).get("keys"))

    async def _get(self, url: str) -> dict[str, Any]:
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
        async with (
            asyncio.timeout(2 * TIMEOUT_SECONDS),
            self._http.stream("GET", url, extensions={"timeout": timeout}) as response,
        ):
            if response.status != 200:  # redirects are not followed
                raise UnreachableError(f"{url} answers {response.status}")
            body = bytearray()
            async for part in response.aiter_stream():
                body += part
                if len(body) > MAX_BYTES:
                    raise UnreachableError(f"{url} answers too much")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            raise UnreachableError(f"{url} answers no JSON object") from None


def _usable(found: object) -> dict[str | None, PublicKey]:
    """Return the public keys that signatures may be made with, by their id."""
    keys: dict[str | None, PublicKey] = {}
    for data in found[:MAX_KEYS] if isinstance(found, list) else ():
        if not isinstance(data, dict) or data.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(data)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey) and key.public_key.key_size < RSA_BITS:
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            keys[key.kid] = key
    if len(keys) == 1:  # then a token need not name it
        keys[None] = next(iter(keys.values()))
    return keys


def _context(root_certificates: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if root_certificates:
            context.load_verify_locations(root_certificates)
    except OSError as error:  # of TLS too
        raise SettingsError(f"{root_certificates}: {error.strerror}") from None
    return context
