"""Work folders: one a build, below one a worker, removed with either."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class WorkFolders:
    """The folders of one worker; it removes those of dead workers on this machine as well."""

    def __init__(self, root: Path, worker: str) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(root)
        self._root = root
        self._folder = root / worker
        # Held as long as the process lives, and by nobody after: the lock is its sign of life.
        self._lock = _try_lock(root / f"{worker}.lock")
        self._folder.mkdir(mode=0o700)

    @contextmanager
    def build(self, name: str) -> Iterator[Path]:
        """Give a build a folder of its own for as long as it is worked on."""
        _sweep(self._root)
        folder = self._folder / name.replace("/", "-")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            remove(folder)

    def close(self) -> None:
        """Remove the worker's folder, and what dead workers left meanwhile."""
        if self._lock is not None:
            os.close(self._lock)
        _sweep(self._root)


def remove(folder: Path) -> None:
    """Remove a folder as far as it can be done, whatever rights were taken from what is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        with suppress(OSError):
            _open_up(folder)
        for parent, folders, _ in os.walk(folder):  # each folder is opened before it is walked
            for name in folders:
                with suppress(OSError):
                    _open_up(Path(parent) / name)
        shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: Path) -> None:
    """Give a folder's owner all rights; nothing is done to what a link leads to."""
    if not folder.is_symlink():
        folder.chmod(0o700)


def _sweep(root: Path) -> None:
    """Remove the folders of workers that are dead.

    A worker's last child may outlive it for a moment, hold its lock and write: what could not
    be removed keeps its lock file, and is met again by the next sweep.
    """
    for path in root.glob("*.lock"):
        descriptor = _try_lock(path)
        if descriptor is None:
            continue
        folder = path.with_suffix("")
        remove(folder)
        if not folder.exists():
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
