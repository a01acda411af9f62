"""A unified diff cut into files and numbered lines, for a page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_LINES = 20_000
"""So many lines of one difference go on a page."""

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,\d{1,9})? \+(\d{1,9})(?:,\d{1,9})? @@")
_KINDS = {"+": "add", "-": "del", "@": "hunk", "\\": "meta"}


@dataclass(slots=True)
class Line:
    """One line; `kind` is `add`, `del`, `hunk`, `meta` or empty, numbers are empty outside."""

    kind: str
    old: str
    new: str
    text: str


@dataclass(slots=True)
class FileDiff:
    """What a diff says of one file."""

    title: str
    lines: list[Line] = field(default_factory=list)
    added: int = 0
    removed: int = 0


def files_of(diff: str) -> tuple[list[FileDiff], int]:
    """Return a diff's files, and how many lines were left out for its length."""
    lines = diff.removesuffix("\n").split("\n") if diff else []
    files: list[FileDiff] = []
    old = new = 0
    inside = False
    for line in lines[:MAX_LINES]:
        if line.startswith("diff --git ") or (not inside and line.startswith("--- ") and not files):
            files.append(FileDiff(_title(line)))
            inside = False
        if not files:
            files.append(FileDiff(""))
        file = files[-1]
        if hunk := _HUNK.match(line):
            old, new, inside = int(hunk[1]), int(hunk[2]), True
            file.lines.append(Line("hunk", "", "", line))
        elif not inside:
            _describe(file, line)
        else:
            kind = _KINDS.get(line[:1], "")
            shown = Line(kind, "", "", line[1:] if kind != "meta" else line)
            if kind in ("", "del"):
                shown.old, old = str(old), old + 1
            if kind in ("", "add"):
                shown.new, new = str(new), new + 1
            file.added += kind == "add"
            file.removed += kind == "del"
            file.lines.append(shown)
    return files, max(len(lines) - MAX_LINES, 0)


def _title(line: str) -> str:
    # The paths may hold spaces: of two equal halves, one is the name.
    paths = line.removeprefix("diff --git ").removeprefix("--- ")
    half = (len(paths) - 1) // 2
    if paths[:1] == "a" and paths[1:half] == paths[half + 2 :] and paths[half : half + 2] == " b":
        return paths[2:half]
    return paths.partition(" b/")[2] or paths


def _describe(file: FileDiff, line: str) -> None:
    if line.startswith(("new file", "deleted file", "old mode", "new mode", "rename", "Binary")):
        file.lines.append(Line("meta", "", "", line))
