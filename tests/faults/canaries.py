"""Secrets laid out to be found: in which forms they may leak, and the places looked at."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from urllib.parse import quote

import psutil


class Canaries:
    """Secrets by name, and what has been found of them."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self.found: list[str] = []
        self.looked_at: dict[str, int] = {}
        self.names = set(secrets)
        self._forms = [(name, form) for name, secret in secrets.items() for form in _forms(secret)]

    def look(self, place: str, data: bytes, names: Set[str] | None = None) -> None:
        """Look for secrets, all unless told which, in all their forms, in what a place held."""
        self.looked_at[place] = self.looked_at.get(place, 0) + len(data)
        for name, form in self._forms:
            if form in data and (names is None or name in names):
                self.found.append(f"{name} in {place}")

    def look_at_files(self, place: str, folder: Path) -> None:
        """Look at every file under a folder, unpacked where it is packed."""
        for path in (p for p in sorted(folder.rglob("*")) if p.is_file()):
            data = path.read_bytes()
            self.look(place, data)
            if data.startswith(b"\x1f\x8b"):
                self.look(place, gzip.decompress(data))

    def look_at_processes(
        self,
        place: str,
        processes: Iterable[psutil.Process],
        *,
        environment: bool,
        names: Set[str] | None = None,
    ) -> None:
        """Look at command lines, and at the environments that were handed down."""
        for process in processes:
            root = Path("/proc") / str(process.pid)
            try:
                self.look(place, (root / "cmdline").read_bytes(), names)
                if environment:
                    self.look(place, (root / "environ").read_bytes(), names)
            except FileNotFoundError:  # it ended
                continue


def _forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    aligned = {_base64(raw, before) for before in range(3)}
    quoted = {quote(secret, safe=safe).encode() for safe in ("", "/")}
    return {raw, raw.hex().encode()} | quoted | aligned


def _base64(raw: bytes, before: int) -> bytes:
    """Return the part of a secret's base64 that is the same whatever stands around it."""
    text = base64.b64encode(b"\0" * before + raw)
    return text[4 if before else 0 : len(text) // 4 * 4 - 4]
