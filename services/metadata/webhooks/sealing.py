"""Secrets at rest: encrypted, with keys of a file if the operator names one.

Without a file the key lies in the database, as the one that signs delegations does:
what is listed or logged by mistake shows no secret, but a copy of the database does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from services.common.database import Database
from services.common.settings import SettingsError
from services.metadata.projects.store import keep_signing_key

PURPOSE = "webhooks"


class UnreadableSecretError(Exception):
    """A sealed secret cannot be opened: it was sealed with another key."""


class Seal:
    """Seals secrets with the first of some keys, opens them with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])

    def close(self, secret: str) -> bytes:
        """Return a secret as it may be stored."""
        return self._keys.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return a stored secret.

        Raises:
            UnreadableSecretError: no key fits.
        """
        try:
            return self._keys.decrypt(sealed).decode()
        except InvalidToken:
            raise UnreadableSecretError from None


async def make_seal(key_file: str, *, database: Database, clock: Callable[[], datetime]) -> Seal:
    """Make the installation's seal; its own key is made at first start.

    Raises:
        SettingsError: the file cannot be read, or does not hold keys.
    """
    if key_file:
        return _from_file(Path(key_file))
    made, now = Fernet.generate_key(), clock()
    kept = await database.write(lambda tx: keep_signing_key(tx.connection, PURPOSE, made, now))
    return Seal([kept])


def _from_file(path: Path) -> Seal:
    try:
        return Seal(path.read_bytes().split())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"{path}: must hold a key a line, 32 bytes in base64") from None
