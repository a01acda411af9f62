"""Locks of environments: `name==version` lines, sorted; all have hashes of their files, or none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping

from packaging.utils import canonicalize_name, canonicalize_version

HASH = "--hash="
_PIN = re.compile(
    rf"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)((?: {HASH}sha(?:256|384|512):[0-9a-f]+)*)", re.ASCII
)


class EnvironmentFailedError(Exception):
    """An environment cannot be resolved or made; the text is meant for whoever wants it."""


def lock_digest(lock: str) -> str:
    """Return the SHA-256 of a lock, as versions and bundles carry it."""
    return hashlib.sha256(lock.encode()).hexdigest()


def pin_key(name: str, version: str) -> str:
    """Return what a package of a version is called, however either is spelt."""
    return f"{canonicalize_name(name)}=={canonicalize_version(version)}"


def pin(line: str) -> str:
    """Return a line's `name==version`, without hashes."""
    return line.split(maxsplit=1)[0]


def vouched(lock: str, hashes: Mapping[str, Collection[str]]) -> str:
    """Put the hashes that a source gives in the place of the index's.

    Raises:
        EnvironmentFailedError: a package that it gives hashes for has another version.
    """
    names = {key.partition("==")[0] for key in hashes}
    lines = []
    for line in lock.splitlines():
        name, _, version = pin(line).partition("==")
        digests = hashes.get(pin_key(name, version))
        if digests is None and canonicalize_name(name) in names:
            raise EnvironmentFailedError(f"{name} {version} is not a version that has hashes")
        mine = [pin(line), *(f"{HASH}{digest}" for digest in sorted(digests or ()))]
        lines.append(" ".join(mine) if digests else line)
    return "".join(f"{line}\n" for line in lines)


def check_lock(lock: str) -> None:
    """Refuse a lock that is not exact versions only: no addresses, options or paths."""
    for line in lock.splitlines():
        found = _PIN.fullmatch(line)
        if found is None:
            raise EnvironmentFailedError(f"{line[:200]!r} is not an exact version, name==version")
        if bool(found[3]) != (HASH in lock):
            raise EnvironmentFailedError(f"{found[1]} has no hash, but others have")
        if found[1].lower() == "modelyard":
            raise EnvironmentFailedError("a lock never holds modelyard: the suite brings its own")
