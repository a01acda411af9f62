"""Work folders: one a build, below one a worker, removed with either."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WorkFolders:
    """The folders of one worker; those of dead workers on this machine are removed at start."""

    def __init__(self, root: Path, worker: str) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(root)
        self._folder = root / worker
        self._lock_path = root / f"{worker}.lock"
        # Held as long as the process lives, and by nobody after: the lock is its sign of life.
        self._lock = _try_lock(self._lock_path)
        self._folder.mkdir(mode=0o700)

    @contextmanager
    def build(self, name: str) -> Iterator[Path]:
        """Give a build a folder of its own for as long as it is worked on."""
        folder = self._folder / name.replace("/", "-")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove the worker's folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock_path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)


def _sweep(root: Path) -> None:
    """Remove the folders of workers that are dead."""
    for path in root.glob("*.lock"):
        descriptor = _try_lock(path)
        if descriptor is not None:
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Lock a file if nobody else has it; return what holds the lock."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
