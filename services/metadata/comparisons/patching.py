"""Unified diffs as git writes them, of two files or of a stretch of them: pure, bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

CONTEXT = 3
MAX_LINES = 20_000
"""More lines than this on a side take too long to align."""

NO_NEWLINE = "\\ No newline at end of file\n"


class TooLongError(Exception):
    """Two texts cannot be aligned within the bounds."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a patch: where the file is, and whether it is executable."""

    path: str
    executable: bool = False

    @property
    def mode(self) -> str:
        """Return the mode as git writes it."""
        return "100755" if self.executable else "100644"


class _Matcher(SequenceMatcher[str]):
    """Aligns lines until a deadline, of `time.monotonic`."""

    def __init__(self, old: Sequence[str], new: Sequence[str], deadline: float) -> None:
        self._deadline = deadline
        super().__init__(None, old, new)

    def find_longest_match(self, *bounds: int | None, **named: int | None) -> object:  # type: ignore[override]  # passed on as they are
        """Find the next block, unless time is up."""
        if time.monotonic() > self._deadline:
            raise TooLongError
        return super().find_longest_match(*bounds, **named)  # type: ignore[arg-type]  # the same


def text_of(data: bytes) -> str | None:
    """Return a file's text; None for a binary file."""
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def lines_of(text: str) -> list[str]:
    """Split a text into lines, each with its newline, at newlines only."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def header(old: Side | None, new: Side | None, *, changed: bool) -> str:
    """Return what stands before a file's hunks; None is a file that is not there."""
    before, after = old or new, new or old
    assert before is not None  # noqa: S101 - one of them is there
    assert after is not None  # noqa: S101 - the same
    lines = [f"diff --git a/{before.path} b/{after.path}"]
    if old is None:
        lines.append(f"new file mode {after.mode}")
    elif new is None:
        lines.append(f"deleted file mode {before.mode}")
    elif before.mode != after.mode:
        lines += [f"old mode {before.mode}", f"new mode {after.mode}"]
    if before.path != after.path:
        lines += [f"rename from {before.path}", f"rename to {after.path}"]
    if changed:
        lines += [f"--- {_place('a', old)}", f"+++ {_place('b', new)}"]
    return "".join(f"{line}\n" for line in lines)


def hunks(
    old: Sequence[str],
    new: Sequence[str],
    *,
    deadline: float,
    old_start: int = 0,
    new_start: int = 0,
) -> Iterator[str]:
    """Yield the hunks that make one list of lines the other.

    Args:
        old: the lines before, each with its newline.
        new: the lines after.
        deadline: until when to try, of `time.monotonic`.
        old_start: how many lines of the file stand before `old`.
        new_start: how many stand before `new`.

    Raises:
        TooLongError: They are too long, or time is up.
    """
    if max(len(old), len(new)) > MAX_LINES:
        raise TooLongError
    for group in _Matcher(old, new, deadline).get_grouped_opcodes(CONTEXT):
        (_, i1, _, j1, _), (_, _, i2, _, j2) = group[0], group[-1]
        yield f"@@ -{_range(i1, i2, old_start)} +{_range(j1, j2, new_start)} @@\n"
        for tag, first, last, other_first, other_last in group:
            if tag == "equal":
                yield from _marked(" ", old[first:last])
                continue
            yield from _marked("-", old[first:last])
            yield from _marked("+", new[other_first:other_last])


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield f"{mark}{line}" if line.endswith("\n") else f"{mark}{line}\n{NO_NEWLINE}"


def _range(first: int, last: int, start: int) -> str:
    length = last - first
    begin = start + first + (1 if length else 0)
    return str(begin) if length == 1 else f"{begin},{length}"


def _place(prefix: str, side: Side | None) -> str:
    if side is None:
        return "/dev/null"
    # As git does: a tab ends a name that holds spaces.
    return f"{prefix}/{side.path}" + ("\t" if " " in side.path else "")
