"""Trees of files: what may be in one, and the manifest that names it.

An artifact's digest is the SHA-256 of its manifest: the canonical JSON (RFC
8785) of the list of its files, sorted by path. The rules for paths are those of
the server; here they are checked before a byte is sent, and again before a byte
is written.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.errors import InvalidArgumentError

PLAIN_MODE = 0o644
EXECUTABLE_MODE = 0o755
_PATH_BYTES = 1024
_PART_BYTES = 255
_REFUSED_CATEGORIES = ("Cc", "Cs")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a tree, as the manifest names it."""

    path: str
    executable: bool
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to send: where it is, what it is called in the tree, and how it looked."""

    path: str
    location: Path
    executable: bool
    size: int
    mtime_ns: int

    def entry(self, digest: bytes) -> Entry:
        """Return what the manifest says of it."""
        return Entry(self.path, self.executable, self.size, digest.hex())


def encode_manifest(entries: Iterable[Entry]) -> bytes:
    """Return the canonical manifest.

    For members named in ASCII, whole numbers below 2**53 and text without lone
    surrogates, which is all there is in a manifest, `json` writes what RFC 8785 asks.
    """
    ordered = sorted(entries, key=lambda entry: entry.path.encode("utf-16-be"))
    members = [
        {
            "mode": EXECUTABLE_MODE if entry.executable else PLAIN_MODE,
            "path": entry.path,
            "sha256": entry.sha256,
            "size": entry.size,
        }
        for entry in ordered
    ]
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def tree_digest(entries: Iterable[Entry]) -> str:
    """Return the digest of the artifact that these files make, 64 hex digits."""
    return hashlib.sha256(encode_manifest(entries)).hexdigest()


def list_files(
    root: Path, *, ignore: Sequence[str] = (), only: Collection[str] | None = None
) -> list[LocalFile]:
    """Return the files of a folder, or the one file, sorted by path; folders do not count.

    A pattern of `ignore` leaves out every file and folder whose name it matches; `only` leaves
    out every file and folder whose path is not in it.

    Raises:
        InvalidArgumentError: There is a link, a device or a name that no tree may have.
        FileNotFoundError: There is nothing at `root`.
    """
    found = root.stat()
    if stat.S_ISREG(found.st_mode):
        files = [_local(root.name, root, found)]
    elif not stat.S_ISDIR(found.st_mode):
        raise _refusal(str(root), "it is neither a file nor a folder")
    else:
        files = list(_walk(root, "", tuple(ignore), only))
    check_paths(file.path for file in files)
    return sorted(files, key=lambda file: file.path)


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that are malformed or cannot lie in one tree on every system.

    Raises:
        InvalidArgumentError: INVALID_PATH, naming the first such path.
    """
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        problem = _path_problem(path)
        if problem:
            raise _refusal(path, problem)
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            name, is_file = "/".join(parts[:depth]), depth == len(parts)
            folded = unicodedata.normalize("NFC", name.casefold())
            if folded not in seen:
                seen[folded] = name, is_file
                continue
            other, other_is_file = seen[folded]
            if other != name:
                raise _refusal(path, f"it differs from {other!r} in case alone")
            if is_file and other_is_file:
                raise _refusal(path, "it is in the tree twice")
            if is_file or other_is_file:
                raise _refusal(path, "a file of the tree is also a folder")


def _walk(
    folder: Path, prefix: str, ignore: tuple[str, ...], only: Collection[str] | None
) -> Iterator[LocalFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in ignore):
                continue
            path = prefix + entry.name
            if only is not None and path not in only:
                continue
            if entry.is_symlink():
                raise _refusal(path, "it is a symbolic link")
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{path}/", ignore, only)
            elif entry.is_file():
                yield _local(path, Path(entry.path), entry.stat())
            else:
                raise _refusal(path, "it is neither a file nor a folder")


def _local(path: str, location: Path, found: os.stat_result) -> LocalFile:
    executable = bool(found.st_mode & stat.S_IXUSR)
    return LocalFile(path, location, executable, found.st_size, found.st_mtime_ns)


def _path_problem(path: str) -> str:
    parts = path.split("/")
    rules = (
        (any(unicodedata.category(c) in _REFUSED_CATEGORIES for c in path), "it is not plain text"),
        ("\\" in path, "it has a backslash"),
        (unicodedata.normalize("NFC", path) != path, "it is not normalised (NFC)"),
        (not {"", ".", ".."}.isdisjoint(parts), "it has an empty part, '.' or '..'"),
        (_length(path) > _PATH_BYTES, f"it is longer than {_PATH_BYTES} bytes"),
        (
            any(_length(part) > _PART_BYTES for part in parts),
            f"a part of it is longer than {_PART_BYTES} bytes",
        ),
    )
    return next((problem for broken, problem in rules if broken), "")


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _refusal(path: str, problem: str) -> InvalidArgumentError:
    shown = path.encode("utf-8", "backslashreplace").decode()
    return InvalidArgumentError(
        f"the path {shown!r} is refused: {problem}",
        reason="INVALID_PATH",
        metadata={"path": shown, "problem": problem},
    )
