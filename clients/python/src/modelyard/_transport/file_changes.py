"""Files that may be replaced while a program runs, such as certificates: whether they were."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

LOOK_SECONDS = 1.0
"""How often files are looked at, unless told otherwise."""


class FileChanges:
    """Looks at some files now and then."""

    def __init__(self, files: Iterable[str | Path], *, seconds: float | None = None) -> None:
        self._files = [Path(file) for file in files]
        self._seconds = LOOK_SECONDS if seconds is None else seconds
        self._known = self._look()
        self._next = time.monotonic() + self._seconds

    def found(self) -> bool:
        """Say whether anything happened to one of them since this was last said.

        It is said up to `seconds` late, so that asking costs next to nothing.
        """
        now = time.monotonic()
        if not self._files or now < self._next:
            return False
        self._next = now + self._seconds
        known, self._known = self._known, self._look()
        return known != self._known

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_look_at(file) for file in self._files]


def _look_at(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_ino, found.st_size
