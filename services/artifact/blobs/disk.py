"""Packs in a folder: made durable by fsync, rename and fsync of the folder."""

from __future__ import annotations

import os
from pathlib import Path

from services.artifact.blobs import BlobMissingError, ReadSigner, disk_errors

_FAN_OUT = 2


class DiskBlobs:
    """Keep blobs as files under a folder; the files put must lie in its file system."""

    def __init__(self, root: Path, reads: ReadSigner | None = None) -> None:
        self.reads = reads
        self.puts = None
        self._root = root
        make_folder(root)

    def checksum(self, name: str) -> None:
        """Return nothing: a folder keeps no checksums."""

    def put(self, name: str, source: Path) -> None:
        """Take over a file: its bytes reach the disk before its name does."""
        target = self.path(name)
        with disk_errors():
            _sync(source)
            if not target.parent.is_dir():
                make_folder(target.parent)
                _sync(self._root)
            source.rename(target)
            _sync(target.parent)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly a range of a blob, or raise `BlobMissingError`."""
        with disk_errors():
            try:
                descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise BlobMissingError(name) from None
            try:
                data = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        if len(data) != length:
            raise BlobMissingError(name)
        return data

    def size(self, name: str) -> int | None:
        """Return the size of a blob in bytes, or None when there is none."""
        with disk_errors():
            try:
                return self.path(name).stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """Remove a blob; there may be none."""
        with disk_errors():
            self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Return where a blob lies, if there is one."""
        return self._root / name[:_FAN_OUT] / name


def make_folder(path: Path) -> None:
    """Make a folder that its owner alone may enter; it may exist."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
