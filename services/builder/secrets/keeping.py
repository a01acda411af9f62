"""Secrets kept: set, changed, deleted, and opened for those who may have their values.

Every change and every handing out of values is told to the log, without a value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

from services.builder.secrets import store
from services.builder.secrets.domain import MAX_SECRETS_OF_A_PROJECT, Secret, SecretChange
from services.common.errors import (
    Reason,
    ServiceError,
    already_exists,
    etag_mismatch,
    not_found,
)
from services.common.names import SecretName
from services.common.sealing import Seal, UnreadableSecretError, make_seal
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once

logger = logging.getLogger(__name__)

SEAL_PURPOSE = "secrets"


@dataclass(frozen=True, slots=True)
class _Deleted:
    """The answer that is kept for a repeat."""


class Vault:
    """Keeps the secrets of projects."""

    def __init__(self, *, database: Database, seal: Seal, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._seal = seal
        self._clock = clock

    async def create(
        self, name: SecretName, change: SecretChange, *, creator: str, key: Key | None
    ) -> Secret:
        """Keep a new secret.

        Raises:
            ServiceError: RESOURCE_EXISTS, INVALID_FIELD, LIMIT_EXCEEDED, REQUEST_ID_REUSED.
        """
        change = replace(change, value=change.value or "")
        change.check()
        now = self._clock()
        made = Secret(name, change.description or "", creator, now, now, 1)
        sealed = self._seal.close(change.value or "")

        def add(tx: Transaction) -> Secret:
            if not store.add_secret(tx.connection, made, sealed):
                raise already_exists(name)
            _check_count(tx, name.project)
            return made

        secret = await self._database.write(
            lambda tx: once(tx, self._blinded(key), Secret, lambda: add(tx))
        )
        _tell("secret created", name, creator)
        return secret

    async def get(self, name: SecretName) -> Secret:
        """Return a secret, or refuse with RESOURCE_NOT_FOUND."""
        found = await self._database.read(lambda tx: store.find_secret(tx.connection, name))
        if found is None:
            raise not_found(name)
        return found

    async def list(self, project: str, *, after: str, limit: int) -> list[Secret]:
        """Return a project's secrets by name, from after an id on."""
        return await self._database.read(
            lambda tx: store.list_secrets(tx.connection, project, after=after, limit=limit)
        )

    async def update(
        self, name: SecretName, change: SecretChange, *, etag: str, updater: str, key: Key | None
    ) -> Secret:
        """Set a secret's value or description; attempts that begin later use it.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, INVALID_FIELD.
        """
        change.check()
        now = self._clock()
        sealed = None if change.value is None else self._seal.close(change.value)

        def save(tx: Transaction) -> Secret:
            current = _expected(tx, name, etag)
            changed = replace(
                current,
                description=(
                    current.description if change.description is None else change.description
                ),
                updater=current.updater if sealed is None else updater,
                update_time=current.update_time if sealed is None else now,
                revision=current.revision + 1,
            )
            store.save_secret(tx.connection, changed, sealed)
            return changed

        secret = await self._database.write(
            lambda tx: once(tx, self._blinded(key), Secret, lambda: save(tx))
        )
        _tell("secret updated", name, updater)
        return secret

    async def delete(self, name: SecretName, *, etag: str, actor: str, key: Key | None) -> None:
        """Delete a secret with its value.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """

        def delete(tx: Transaction) -> _Deleted:
            _expected(tx, name, etag)
            store.delete_secret(tx.connection, name)
            return _Deleted()

        await self._database.write(lambda tx: once(tx, key, _Deleted, lambda: delete(tx)))
        _tell("secret deleted", name, actor)

    async def require(self, names: Collection[SecretName]) -> None:
        """Refuse with RESOURCE_NOT_FOUND names of secrets that do not exist."""
        if names:
            await self._sealed(names)

    async def values(self, names: Collection[SecretName]) -> dict[SecretName, str]:
        """Return the values of secrets, for a caller who saw to it that they may be had.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; SERVICE_UNAVAILABLE when a value was sealed with
                a key that this service was not given.
        """
        try:
            return {
                name: self._seal.open(sealed)
                for name, sealed in (await self._sealed(names)).items()
            }
        except UnreadableSecretError:
            message = "a secret was sealed with a key that the builder does not have"
            raise ServiceError(Reason.SERVICE_UNAVAILABLE, message) from None

    async def _sealed(self, names: Collection[SecretName]) -> dict[SecretName, bytes]:
        found = await self._database.read(lambda tx: store.sealed_values(tx.connection, names))
        for name in names:
            if name not in found:
                raise not_found(name)
        return found

    def _blinded(self, key: Key | None) -> Key | None:
        """Keep a repeated request recognisable, but not by a digest that tells short values."""
        return key and replace(key, fingerprint=self._seal.blind(key.fingerprint))


async def open_vault(key_file: str, *, database: Database, clock: Callable[[], datetime]) -> Vault:
    """Make the vault; without a file of keys, its own is made at first start.

    Raises:
        SettingsError: the file cannot be read, or does not hold keys.
    """

    async def keep(key: bytes) -> bytes:
        return await database.write(
            lambda tx: store.keep_sealing_key(tx.connection, SEAL_PURPOSE, key, clock())
        )

    return Vault(database=database, seal=await make_seal(key_file, keep), clock=clock)


def _expected(tx: Transaction, name: SecretName, etag: str) -> Secret:
    """Return a secret, locked, if it is there and as the caller believes."""
    found = store.find_secret(tx.connection, name, lock=True)
    if found is None:
        raise not_found(name)
    if etag and etag != found.etag:
        raise etag_mismatch(name, current=found.etag)
    return found


def _check_count(tx: Transaction, project: str) -> None:
    if store.count_secrets(tx.connection, project) > MAX_SECRETS_OF_A_PROJECT:
        maximum = str(MAX_SECRETS_OF_A_PROJECT)
        message = f"a project has at most {maximum} secrets"
        raise ServiceError(
            Reason.LIMIT_EXCEEDED, message, limit="secrets_of_a_project", maximum=maximum
        )


def _tell(what: str, name: SecretName, principal: str) -> None:
    logger.info(what, extra={"secret": str(name), "principal": principal})
