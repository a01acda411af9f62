"""What names stand for, kept for a moment: most of a registry's calls ask the same few names.

A commit of this process is seen at once: what it changed is forgotten before whoever wrote is
answered. A commit of another process is seen after `KEPT_SECONDS` at the latest.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from services.common.sql.outbox import Event

KEPT_SECONDS = 0.2
KEPT_NAMES = 10_000
CONCERNED = ("version.", "alias.", "model.")


class _Named(msgspec.Struct):
    name: str


class Resolutions:
    """The versions that names stood for a moment ago, encoded."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Model by model, what its names stand for and until when that may be said.
        self._kept: dict[str, dict[str, tuple[float, bytes]]] = {}
        self._count = 0
        self._changes = 0

    def forget(self, events: Sequence[Event]) -> None:
        """Forget what a commit may have changed; a listener of the database."""
        for event in events:
            if event.kind.startswith(CONCERNED):
                self._changes += 1
                name = msgspec.msgpack.decode(event.payload, type=_Named).name
                self._count -= len(self._kept.pop(_model(name), ()))

    async def find(self, name: str, read: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """Return the version a name stands for, from memory or by reading; None if none."""
        model, now = _model(name), self._clock()
        until, version = self._kept.get(model, {}).get(name, (0.0, None))
        if until > now:
            return version
        changes = self._changes
        version = await read()
        # What was read before a change must not be kept after it.
        if version is not None and changes == self._changes:
            self._keep(model, name, version, now)
        return version

    def _keep(self, model: str, name: str, version: bytes, now: float) -> None:
        if self._count >= KEPT_NAMES:
            self._kept.clear()
            self._count = 0
        names = self._kept.setdefault(model, {})
        self._count += name not in names
        names[name] = (now + KEPT_SECONDS, version)


def _model(name: str) -> str:
    """Return the model part, `projects/p/models/m`, of a name below it."""
    return "/".join(name.split("/", 4)[:4])
