"""Delegations as signed text: JWTs with Ed25519, and nothing else accepted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from services.common.auth import Right, invalid_credential
from services.common.names import project_of
from services.common.sql.database import Database
from services.metadata.projects import store
from services.metadata.projects.domain import Delegation

ALGORITHM = "Ed25519"
TYPE = "modelyard-delegation+jwt"
ISSUER = "modelyard"
PURPOSE = "delegations"


def new_private_key() -> bytes:
    """Make a private key, as the JSON of a JWK."""
    key = OKPKey.generate_key("Ed25519", auto_kid=True)
    return json.dumps(key.as_dict(private=True)).encode()


async def signing_key(database: Database, *, clock: Callable[[], datetime]) -> bytes:
    """Return the installation's private key, made at first start."""
    made, now = new_private_key(), clock()
    return await database.write(
        lambda tx: store.keep_signing_key(tx.connection, PURPOSE, made, now)
    )


class Signer:
    """Signs delegations, and reads those it signed."""

    def __init__(self, private_key: bytes) -> None:
        self._key = OKPKey.import_key(json.loads(private_key))

    def sign(self, delegation: Delegation) -> str:
        """Return the credential of a delegation."""
        claims = {
            "iss": ISSUER,
            "sub": delegation.principal,
            "project": delegation.project,
            "resource": delegation.resource,
            "rights": sorted(right.value for right in delegation.rights),
            "exp": int(delegation.expire_time.timestamp()),
            "voucher": delegation.voucher,
        }
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    def issued(self, credential: str) -> bool:
        """Say whether a credential claims to be a delegation."""
        try:
            header = jws.extract_compact(credential.encode()).headers()
        except (JoseError, ValueError, TypeError):
            return False
        return header.get("typ") == TYPE

    def read(self, credential: str) -> Delegation:
        """Return what a credential says, expired or not; refused unless we signed it.

        Raises:
            ServiceError: INVALID_CREDENTIAL.
        """
        try:
            token = jwt.decode(credential, self._key, algorithms=[ALGORITHM])
        except (JoseError, ValueError, TypeError):
            raise invalid_credential() from None
        if token.header.get("typ") != TYPE or token.claims.get("iss") != ISSUER:
            raise invalid_credential()
        return _delegation(token.claims)


def _delegation(claims: Mapping[str, Any]) -> Delegation:
    """Read the claims of a token whose signature is ours."""
    return Delegation(
        principal=claims["sub"],
        project=project_of(claims["resource"], "resource"),
        resource=claims["resource"],
        rights=frozenset(Right(right) for right in claims["rights"]),
        expire_time=datetime.fromtimestamp(claims["exp"], UTC),
        voucher=claims["voucher"],
    )
