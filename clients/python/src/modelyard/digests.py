"""Digests of folders on disk, as the registry names what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from modelyard._transfers.tree import Entry, LocalFile, list_files, tree_digest


def folder_digest(folder: Path) -> str:
    """Return the id of the artifact that a folder's files make: 64 hex digits; reads all of them.

    Raises:
        InvalidArgumentError: There is a link, a device or a name that no artifact may have.
        OSError: It cannot be read.
    """
    return tree_digest(_entry(file) for file in list_files(folder))


def _entry(file: LocalFile) -> Entry:
    with file.location.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Entry(file.path, file.executable, file.size, digest)
