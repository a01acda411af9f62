"""Tokens of OIDC issuers: looked at from the outside in, each step able to refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry

from services.common.auth import invalid_credential
from services.metadata.oidc.domain import Issuer, SignedIn
from services.metadata.oidc.keys import Keys, PublicKey

LEEWAY_SECONDS = 60
TYPES = (None, "JWT", "at+jwt")
PARTS = 3


class Verifier:
    """Says whom the tokens of some issuers stand for."""

    def __init__(
        self, issuers: Sequence[tuple[Issuer, Keys]], *, clock: Callable[[], datetime]
    ) -> None:
        self._issuers = {issuer.issuer: (issuer, keys) for issuer, keys in issuers}
        self._clock = clock

    async def verify(self, credential: str) -> SignedIn:
        """Return whom a token stands for.

        Raises:
            ServiceError: INVALID_CREDENTIAL; SERVICE_UNAVAILABLE when the issuer must be
                asked for its keys and does not answer.
        """
        header, claimed = _peek(credential)
        named = claimed.get("iss")
        issuer, keys = self._issuers.get(named if isinstance(named, str) else "", (None, None))
        algorithm, kid = header.get("alg"), header.get("kid")
        if issuer is None or keys is None or algorithm not in issuer.algorithms:
            raise invalid_credential()
        # What is critical to its issuer and unknown here must not be passed over.
        if "crit" in header or header.get("typ") not in TYPES or not isinstance(kid, str | None):
            raise invalid_credential()
        key = await keys.find(kid, algorithm)
        claims = await asyncio.to_thread(self._claims, credential, issuer, algorithm, key)
        principal = issuer.principal_of(claims)
        expire_time = datetime.fromtimestamp(min(int(claims["exp"]), 2**40), UTC)
        return SignedIn(principal, principal in issuer.operators, expire_time)

    def _claims(
        self, credential: str, issuer: Issuer, algorithm: str, key: PublicKey
    ) -> Mapping[str, Any]:
        """Return what a token claims, once its signature and its claims are seen to be right."""
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        demanded = {"iss": issuer.issuer, "aud": issuer.audience, **issuer.require}
        wanted = {name: ClaimsOption(essential=True, value=v) for name, v in demanded.items()}
        wanted |= {name: ClaimsOption(essential=True) for name in ("exp", "sub")}
        now = int(self._clock().timestamp())
        rules = JWTClaimsRegistry(now=now, leeway=LEEWAY_SECONDS, **wanted)
        try:
            token = jwt.decode(credential, key, registry=registry)
            rules.validate(token.claims)
        except (JoseError, ValueError, TypeError):
            raise invalid_credential() from None
        return token.claims


def _peek(credential: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what a token says of itself, which is worth nothing yet."""
    try:
        if credential.count(".") != PARTS - 1:  # more: encrypted, which nobody asked for
            raise invalid_credential()
        signed = jws.extract_compact(credential.encode())
        return signed.headers(), msgspec.json.decode(signed.payload or b"", type=dict[str, Any])
    except (JoseError, ValueError, TypeError):
        raise invalid_credential() from None
