"""How two work trees differ that were changed from the same commit: pure, from their diffs.

Of each file only the lines that the diffs show are known, and only there can the
two differ: stretches of lines that either diff shows are put together, both
changes are applied to them, and the results are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from services.metadata.comparisons.patching import Side, header, hunks


class UnreadableError(Exception):
    """A diff cannot be read, or is not of the same commit."""


@dataclass(slots=True)
class _Change:
    """A hunk: which lines of the commit's file it covers, and what they become."""

    start: int
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.old)


@dataclass(slots=True)
class _File:
    """What one diff does to one file of the commit; `path` None: it is not there after it."""

    path: str | None
    changes: list[_Change] = field(default_factory=list)
    binary: bool = False
    added: bool = False


def difference(first: str, second: str, *, deadline: float) -> tuple[str, list[str]]:
    """Return the diff from one work tree to another, and the binary files left out.

    Args:
        first: how the first differs from the commit; empty: it does not.
        second: how the second differs from it.
        deadline: until when to try, of `time.monotonic`.

    Raises:
        UnreadableError: One cannot be read, or they are not of the same commit.
        TooLongError: It takes too long.
    """
    ours, theirs = _files(first), _files(second)
    written, binary = [], []
    for name in sorted({*ours, *theirs}):
        one = ours.get(name) or _untouched(name, theirs[name])
        two = theirs.get(name) or _untouched(name, ours[name])
        if one.binary or two.binary:
            binary.append(name)
        else:
            written.append(_file_difference(one, two, deadline))
    return "".join(written), binary


def _untouched(name: str, other: _File) -> _File:
    return _File(None if other.added else name)


def _file_difference(one: _File, two: _File, deadline: float) -> str:
    body: list[str] = []
    shifts = [0, 0]
    for start, stretch in _stretches(one.changes, two.changes):
        before = _applied(stretch, start, one.changes)
        after = _applied(stretch, start, two.changes)
        body += hunks(
            before,
            after,
            deadline=deadline,
            old_start=start + shifts[0],
            new_start=start + shifts[1],
        )
        shifts[0] += len(before) - len(stretch)
        shifts[1] += len(after) - len(stretch)
    if not body and one.path == two.path:
        return ""
    old = None if one.path is None else Side(one.path)
    new = None if two.path is None else Side(two.path)
    return header(old, new, changed=bool(body)) + "".join(body)


def _stretches(ours: Sequence[_Change], theirs: Sequence[_Change]) -> list[tuple[int, list[str]]]:
    """Return the stretches of the commit's lines that either diff shows, in order."""
    found: list[tuple[int, list[str]]] = []
    for change in sorted([*ours, *theirs], key=lambda change: (change.start, change.end)):
        start, known = found[-1] if found else (0, [])
        if not found or change.start > start + len(known):
            found.append((change.start, list(change.old)))
            continue
        shared = start + len(known) - change.start
        offset = change.start - start
        if known[offset : offset + len(change.old)] != change.old[:shared]:
            raise UnreadableError("the differences are not from the same files")
        known += change.old[max(shared, 0) :]
    return found


def _applied(stretch: Sequence[str], start: int, changes: Sequence[_Change]) -> list[str]:
    lines: list[str] = []
    at = start
    for change in changes:
        if start <= change.start and change.end <= start + len(stretch):
            lines += [*stretch[at - start : change.start - start], *change.new]
            at = change.end
    return [*lines, *stretch[at - start :]]


def _files(diff: str) -> dict[str, _File]:
    """Return what a diff does, by the commit's own path of each file."""
    try:
        patches = PatchSet.from_string(diff)
    except UnidiffParseError as error:
        raise UnreadableError("a recorded difference is not whole") from error
    return dict(_file(patch) for patch in patches)


def _file(patch: PatchedFile) -> tuple[str, _File]:
    source, target = _plain(patch.source_file), _plain(patch.target_file)
    return source or target or "", _File(
        target,
        sorted((_change(hunk) for hunk in patch), key=lambda change: change.start),
        binary=patch.is_binary_file,
        added=source is None,
    )


def _plain(place: str) -> str | None:
    if place == "/dev/null":
        return None
    return place[2:] if place.startswith(("a/", "b/")) else place


def _change(hunk: Hunk) -> _Change:
    # A hunk without old lines names the line it comes after, others their first.
    change = _Change(hunk.source_start - (1 if hunk.source_length else 0))
    shown: list[list[str]] = []
    for line in hunk:
        if line.line_type == "\\":
            for lines in shown:
                lines[-1] = lines[-1].removesuffix("\n")
            continue
        shown = {" ": [change.old, change.new], "-": [change.old], "+": [change.new]}[
            line.line_type
        ]
        for lines in shown:
            lines.append(line.value)
    return change
