"""Telling whether a process is still the one it was, and locks that end with their holder."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, told apart from a later one with its number."""

    pid: int
    start: str
    scope: str

    def lives(self) -> bool | None:
        """Say whether it runs; None when it was started where its number means nothing here."""
        if self.scope != _scope():
            return None
        return _start_of(self.pid) == self.start


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return ProcessIdentity(os.getpid(), _start_of(os.getpid()), _scope())


class FileLock:
    """A lock on a file that the kernel releases when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path

    def acquire(self) -> bool:
        """Take the lock if nobody has it, and the file is still the one at its path."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Release the lock, if held."""
        os.close(self._file)


def is_locked(path: Path) -> bool:
    """Say whether some process holds the lock on a file."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        return not lock.acquire()
    finally:
        lock.close()


def _start_of(pid: int) -> str:
    """Return when a process started, in the system's words; empty when it does not run."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc/self/stat").exists() else _signalled(pid)
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str:
    """Say `running` for a process on a system without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"


def _scope() -> str:
    """Return in which boot and process namespace numbers are given out."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return os.uname().nodename
