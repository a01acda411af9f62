"""Manifests: the canonical list of an artifact's files, and the rules for paths.

A manifest is the RFC 8785 form of the path-sorted list of
`{"mode", "path", "sha256", "size"}`. It names what an artifact is and nothing
about how it is stored. A path is data here: it is checked so that any client on
any system can make files of it, and it is never used as a path by this service.
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import rfc8785

from services.artifact.domain import (
    DIGEST_BYTES,
    FILES_PER_ARTIFACT,
    PART_BYTES,
    PATH_BYTES,
    limit_exceeded,
)
from services.common.errors import Reason, ServiceError

PLAIN_MODE = 0o644
EXECUTABLE_MODE = 0o755
_SHOWN_CHARACTERS = 200
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs"})


class ManifestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an artifact, as the manifest writes it."""

    mode: int
    path: str
    sha256: str
    size: int

    @property
    def executable(self) -> bool:
        """Say whether the file is executable."""
        return self.mode == EXECUTABLE_MODE

    @property
    def digest(self) -> bytes:
        """Return the file's SHA-256."""
        return bytes.fromhex(self.sha256)


_DECODER = msgspec.json.Decoder(list[ManifestEntry], strict=True)


@dataclass(frozen=True)
class Manifest:
    """The files of an artifact, sorted by path."""

    entries: tuple[ManifestEntry, ...]

    @staticmethod
    def parse(data: bytes) -> Manifest:
        """Read a manifest strictly.

        Raises:
            ServiceError: INVALID_PATH for a refused path, INVALID_MANIFEST for anything that is
                not the canonical form, LIMIT_EXCEEDED for too many files.
        """
        try:
            entries = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise invalid_manifest("it is not a list of mode, path, sha256 and size") from None
        if len(entries) > FILES_PER_ARTIFACT:
            raise limit_exceeded("files_per_artifact", FILES_PER_ARTIFACT)
        for entry in entries:
            _check_entry(entry)
        check_paths(entry.path for entry in entries)
        manifest = Manifest(tuple(entries))
        if manifest.encode() != data:
            raise invalid_manifest("it is not in canonical form, sorted by path")
        return manifest

    @staticmethod
    def load(data: bytes) -> Manifest:
        """Read a manifest that was parsed strictly before it was committed."""
        return Manifest(tuple(_DECODER.decode(data)))

    def encode(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is the artifact's digest."""
        ordered = sorted(self.entries, key=lambda entry: sort_key(entry.path))
        return rfc8785.dumps([msgspec.structs.asdict(entry) for entry in ordered])

    @property
    def size(self) -> int:
        """Return the sum of the files' sizes."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def _keys(self) -> list[bytes]:
        return [sort_key(entry.path) for entry in self.entries]

    def find(self, path: str) -> ManifestEntry | None:
        """Return the file at a path."""
        key = sort_key(path)
        at = bisect.bisect_left(self._keys, key)
        found = at < len(self._keys) and self._keys[at] == key
        return self.entries[at] if found else None

    def page(self, *, prefix: str, after: str | None, limit: int) -> Sequence[ManifestEntry]:
        """Return the files whose path begins with a prefix, from after a path on."""
        start = bisect.bisect_left(self._keys, sort_key(prefix))
        if after is not None:
            start = max(start, bisect.bisect_right(self._keys, sort_key(after)))
        page = self.entries[start : start + limit]
        return [entry for entry in page if entry.path.startswith(prefix)]


def sort_key(path: str) -> bytes:
    """Return the key that sorts paths by UTF-16 code units."""
    return path.encode("utf-16-be", "surrogatepass")


def invalid_manifest(problem: str) -> ServiceError:
    """Say that a manifest is refused."""
    return ServiceError(Reason.INVALID_MANIFEST, f"the manifest is refused: {problem}")


def invalid_path(path: str, problem: str) -> ServiceError:
    """Say that a path is refused, naming it as far as it can be shown."""
    shown = path[:_SHOWN_CHARACTERS].encode("utf-8", "backslashreplace").decode()
    return ServiceError(
        Reason.INVALID_PATH,
        f"the path {shown!r} is refused: {problem}",
        path=shown,
        problem=problem,
    )


def check_path(path: str) -> None:
    """Refuse a path that is not a plain relative one with INVALID_PATH."""
    problem = _path_problem(path)
    if problem:
        raise invalid_path(path, problem)


def _path_problem(path: str) -> str:
    parts = path.split("/")
    problems = (
        (not path, "it is empty"),
        (_has_control(path), "it has a control character"),
        ("\\" in path, "it has a backslash"),
        (unicodedata.normalize("NFC", path) != path, "it is not normalised (NFC)"),
        (_length(path) > PATH_BYTES, f"it is longer than {PATH_BYTES} bytes"),
        (not parts[0], "it is absolute"),
        (not {"", ".", ".."}.isdisjoint(parts), "it has an empty part, '.' or '..'"),
        (
            any(_length(part) > PART_BYTES for part in parts),
            f"a part of it is longer than {PART_BYTES} bytes",
        ),
    )
    return next((text for found, text in problems if found), "")


def _has_control(path: str) -> bool:
    if path.isascii():
        return not path.isprintable()
    return any(unicodedata.category(letter) in _REFUSED_CATEGORIES for letter in path)


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def check_paths(paths: Iterable[str]) -> None:
    """Refuse paths that are malformed or cannot lie in one tree with INVALID_PATH.

    Names that differ in case alone are refused too: on many systems they are one
    file, and the tree would not be the same everywhere.
    """
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        check_path(path)
        at = path.find("/")
        while at != -1:
            _enter(seen, path[:at], path, is_folder=True)
            at = path.find("/", at + 1)
        _enter(seen, path, path, is_folder=False)


def _enter(seen: dict[str, tuple[str, bool]], name: str, path: str, *, is_folder: bool) -> None:
    folded = _fold(name)
    if folded not in seen:
        seen[folded] = (name, is_folder)
        return
    other, other_is_folder = seen[folded]
    if is_folder != other_is_folder:
        raise invalid_path(path, "a file of the tree is also a folder")
    if other != name:
        raise invalid_path(path, f"it differs from {other[:_SHOWN_CHARACTERS]!r} in case alone")
    if not is_folder:
        raise invalid_path(path, "it is in the tree twice")


def _fold(name: str) -> str:
    folded = name.casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)


def _check_entry(entry: ManifestEntry) -> None:
    if entry.mode not in (PLAIN_MODE, EXECUTABLE_MODE):
        raise invalid_manifest("a mode is neither 420 nor 493")
    if len(entry.sha256) != 2 * DIGEST_BYTES or set(entry.sha256) - set("0123456789abcdef"):
        raise invalid_manifest("a sha256 is not 64 lowercase hex digits")
    if not 0 <= entry.size < 2**53:
        raise invalid_manifest("a size is negative or too large")
