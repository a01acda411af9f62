"""Secrets at rest: encrypted, with keys of a file if the operator names one.

Without a file the key lies in the service's own database: what is listed or logged by
mistake shows no secret, but a copy of the database does.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from services.common.safe_start import read_private
from services.common.settings import SettingsError


class UnreadableSecretError(Exception):
    """A sealed secret cannot be opened: it was sealed with another key."""


class Seal:
    """Seals secrets with the first of some keys, opens them with any."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = MultiFernet([Fernet(key) for key in keys])
        self._first = keys[0]

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

    def blind(self, digest: bytes) -> bytes:
        """Return what stands for a digest of something secret without letting it be guessed."""
        return hmac.digest(self._first, digest, hashlib.sha256)


async def make_seal(key_file: str, keep: Callable[[bytes], Awaitable[bytes]]) -> Seal:
    """Make a seal with the keys of a file; without one, with the key that `keep` keeps.

    Args:
        key_file: the path of a file with a Fernet key a line; empty for none.
        keep: is given a new key, to be kept unless there is one; returns the one that is kept.

    Raises:
        SettingsError: the file cannot be read, or by everybody, or does not hold keys.
    """
    return _from_file(Path(key_file)) if key_file else Seal([await keep(Fernet.generate_key())])


def _from_file(path: Path) -> Seal:
    keys = read_private(path).split()
    with contextlib.suppress(ValueError):
        if keys:
            return Seal(keys)
    raise SettingsError(f"{path}: must hold a key a line, 32 bytes in base64")
