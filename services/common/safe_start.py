"""What a process refuses to start with: secrets that are none, and doors left open.

All of it is told before anything is served, in one line, as any bad setting.
"""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path
from urllib.parse import urlsplit

from services.common.settings import SettingsError

SECRET_LENGTH = 16
SHIPPED = "change-me"
"""What the secrets in `deploy/` begin with."""


def is_loopback(address: str) -> bool:
    """Say whether only this machine can reach an address (`host:port` or `unix:path`)."""
    return address.startswith("unix:") or _is_this_machine(address.rpartition(":")[0])


def check_secret(name: str, secret: str) -> None:
    """Refuse a secret that can be guessed; none at all is not this function's business.

    Raises:
        SettingsError: it is short, or the one that was shipped.
    """
    if secret.startswith(SHIPPED):
        raise SettingsError(f"{name} is still the one that was shipped; choose one")
    if 0 < len(secret) < SECRET_LENGTH:
        raise SettingsError(f"{name} has less than {SECRET_LENGTH} characters")


def check_redis(url: str) -> None:
    """Refuse a Redis that other machines reach, and that asks nobody for a password.

    Raises:
        SettingsError: it has none, or a bad one.
    """
    parts = urlsplit(url)
    if not url or parts.scheme == "unix" or _is_this_machine(parts.hostname or ""):
        return
    if not parts.password:
        raise SettingsError(f"redis at {parts.hostname} is on the network: it needs a password")
    check_secret("the password of redis", parts.password)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which everybody may put and replace files; it may be missing.

    Raises:
        SettingsError: everybody may.
    """
    if folder.exists() and folder.stat().st_mode & stat.S_IWOTH:
        raise SettingsError(f"{folder}: everybody may write to this folder; chmod o= it")


def read_private(path: Path) -> bytes:
    """Read a file that holds a secret.

    Raises:
        SettingsError: it cannot be read, or by everybody.
    """
    try:
        if path.stat().st_mode & stat.S_IRWXO:
            raise SettingsError(f"{path}: everybody may read this secret; chmod o= it")
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
