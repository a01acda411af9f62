"""Keeping signatures of versions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.common.errors import Reason, ServiceError, not_found
from services.common.names import VersionName
from services.common.sql.database import Database, Transaction
from services.metadata.models import version_store
from services.metadata.models.domain import VersionState, not_choosable
from services.metadata.signatures import store
from services.metadata.signatures.domain import Signature

SIGNATURES = 20


class Signing:
    """Adds and shows signatures."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self, name: VersionName, bundle: bytes, *, sha256: str, key_hint: str, creator: str
    ) -> Signature:
        """Add a signature; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, WRONG_STATE, LIMIT_EXCEEDED.
        """
        signature = Signature(sha256, key_hint, creator, self._clock())

        def add(tx: Transaction) -> Signature:
            standing = version_store.lock_version(tx.connection, name)
            if standing.is_deleted or standing.state is not VersionState.READY:
                raise not_choosable(name, standing, "signed")
            kept = {found.sha256: found for found in _all(tx, standing.pk)}
            if sha256 in kept:
                return kept[sha256]
            if len(kept) >= SIGNATURES:
                message = f"a version has at most {SIGNATURES} signatures"
                raise ServiceError(
                    Reason.LIMIT_EXCEEDED, message, limit="signatures", maximum=str(SIGNATURES)
                )
            store.add_signature(tx.connection, standing.pk, signature, bundle)
            return signature

        return await self._database.write(add)

    async def list(self, name: VersionName) -> list[Signature]:
        """Return a version's signatures, oldest first."""
        return await self._database.read(lambda tx: _all(tx, _row(tx, name)))

    async def get(self, name: VersionName, sha256: str) -> tuple[Signature, bytes]:
        """Return a signature and its bundle, or refuse with RESOURCE_NOT_FOUND."""

        def read(tx: Transaction) -> tuple[Signature, bytes]:
            pk = _row(tx, name)
            bundle = store.find_bundle(tx.connection, pk, sha256)
            if bundle is None:
                raise not_found(f"{name}/signatures/{sha256}")
            return next(found for found in _all(tx, pk) if found.sha256 == sha256), bundle

        return await self._database.read(read)


def _all(tx: Transaction, version_pk: int) -> list[Signature]:
    return store.list_signatures(tx.connection, version_pk)


def _row(tx: Transaction, name: VersionName) -> int:
    standing = version_store.find_standing(tx.connection, name)
    if standing is None:
        raise not_found(name)
    return standing.pk
