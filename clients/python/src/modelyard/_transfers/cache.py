"""A cache of files on one host, shared by processes: each is fetched once.

A file lies there under its SHA-256, read-only, and is hard-linked to where it is wanted, or
copied where no link is possible. Its time of modification is one fixed moment: one that was
written to, by whatever link, has another and is not used any more, so nothing is hashed
again at each use. Its time of access says when it was last used.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from modelyard._transport.calls import Flow, Pause
from modelyard.artifact.v1 import artifact_pb2
from modelyard.errors import FailedPreconditionError

DEFAULT_MAX_BYTES = 50 * 1024**3
_MARK_NS = 1_577_836_800 * 10**9  # the first second of 2020
_STRIPES = 1024
_POLL_SECONDS = 0.05
_UNFINISHED_SECONDS = 24 * 3600
_KEY = "[0-9a-f]" * 64
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES})


@dataclass(frozen=True, slots=True)
class Cache:
    """Where files are kept, and how many bytes of them: those used last."""

    folder: Path
    max_bytes: int = DEFAULT_MAX_BYTES

    @staticmethod
    def of(chosen: Cache | str | Path | None) -> Cache | None:
        """Return the cache that an argument or MODELYARD_CACHE names; an empty text: none."""
        if isinstance(chosen, Cache):
            return chosen
        named = os.environ.get("MODELYARD_CACHE", "") if chosen is None else chosen
        return Cache(Path(named).expanduser().absolute()) if str(named) else None

    def hand_out(self, file: artifact_pb2.File, place: Path) -> bool:
        """Link a file to where it is wanted, or copy it there; False when it is not as it was."""
        source = self._path(file)
        try:
            found = source.stat()
            if found.st_size != file.size_bytes or found.st_mtime_ns != _MARK_NS:
                return False
            os.utime(source, ns=(time.time_ns(), _MARK_NS))
            _link(source, place)
        except FileNotFoundError:  # never there, or evicted by another process just now
            return False
        return True

    def partial(self, key: str, file: artifact_pb2.File) -> Path:
        """Return where a file is put together by whoever has the lock of `key`."""
        place = _made(self._workplace(key)) / self._name(file)
        with suppress(FileNotFoundError):
            place.chmod(0o600)  # read-only, if it was about to be adopted
        return place

    def adopt(self, key: str, file: artifact_pb2.File, places: Iterable[Path]) -> None:
        """Take over a file that was put together and verified; link it to where it is wanted.

        In this order: once it lies in the cache, another process may evict it.
        """
        partial, target = self._workplace(key) / self._name(file), self._path(file)
        partial.chmod(0o555 if file.executable else 0o444)
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.utime(descriptor, ns=(time.time_ns(), _MARK_NS))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        for place in places:
            _link(partial, place)
        _made(target.parent)
        partial.replace(target)

    def clear(self, key: str) -> None:
        """Remove what is left where files were put together."""
        shutil.rmtree(self._workplace(key), ignore_errors=True)

    def lock(self, key: str, *, is_needed: Callable[[], bool]) -> Flow[int]:
        """Wait for the right to fetch what a key, 64 hex digits, names; see `unlocking`.

        Nobody waits for what is not needed any more.
        """
        descriptor = self._open_lock(key)
        try:
            while is_needed() and not try_lock(descriptor):
                yield Pause(_POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def evict(self) -> None:
        """Remove what was not used for longest, until the rest is small enough."""
        self._drop_unfinished()
        found = []
        for path in (self.folder / "files").glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_atime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in found) - self.max_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

    def _drop_unfinished(self) -> None:
        """Remove what a killed process left and nobody went on with for a day."""
        for folder in (self.folder / "partial").glob(_KEY):
            descriptor = self._open_lock(folder.name)
            with unlocking(descriptor):
                if not try_lock(descriptor):
                    continue
                last = max((path.lstat().st_mtime for path in folder.glob("*")), default=0)
                if last < time.time() - _UNFINISHED_SECONDS:
                    self.clear(folder.name)

    def _open_lock(self, key: str) -> int:
        stripe = int(key[:8], 16) % _STRIPES
        place = _made(self.folder / "locks") / f"{stripe:03x}"
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _workplace(self, key: str) -> Path:
        return self.folder / "partial" / key

    def _path(self, file: artifact_pb2.File) -> Path:
        name = self._name(file)
        return self.folder / "files" / name[:2] / name

    @staticmethod
    def _name(file: artifact_pb2.File) -> str:
        # A link shares its mode with all others.
        return f"{file.sha256}.x" if file.executable else file.sha256


@contextmanager
def unlocking(descriptor: int) -> Iterator[None]:
    """Give a lock back at the end."""
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the lock on an open file or folder, unless another has it.

    Raises:
        FailedPreconditionError: This system has no such locks.
    """
    if sys.platform == "win32":
        raise FailedPreconditionError("a shared cache needs a POSIX system", reason="NO_LOCKS")
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _link(source: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError as problem:
        if problem.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, place)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
