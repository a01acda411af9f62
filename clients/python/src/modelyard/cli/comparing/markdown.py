"""A comparison as GitHub's Markdown, for the comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from modelyard.cli.comparing.view import Code, Figure, Head, Row, View
from modelyard.cli.render import clean

DIFF_LINES = 400
"""So many lines of each difference are written: a comment has a limit."""

_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#!|~&@$]")
_FENCES = re.compile(r"`{3,}")


def write(view: View) -> str:
    """Return a comparison as Markdown."""
    metrics = (
        [f"{_plain(line.key)} {line.goal}".rstrip(), *map(_figure, line.cells)]
        for line in view.metrics
    )
    parts = [
        "### " + " · ".join(_plain(head.short) for head in view.heads),
        _table("Metric", view.heads, metrics),
        _section("Parameters", view, view.params),
        _section("Environment", view, view.environment),
        _section("Packages that differ", view, view.packages),
        _section("Data", view, view.datasets),
        "\n".join(f"- {_plain(note)}" for note in view.data_notes),
        _section("Code", view, view.sources),
        *(_code(code) for code in view.code),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, view: View, rows: Sequence[Row]) -> str:
    """Return a table of what differs; what does not is folded away."""
    differing = [_cells(row) for row in rows if row.differs]
    same = [_cells(row) for row in rows if not row.differs]
    parts = []
    if differing:
        parts.append(_table(title, view.heads, differing))
    if same:
        summary = f"<details><summary>{title}: {len(same)} the same</summary>"
        parts.append(f"{summary}\n\n{_table(title, view.heads, same)}\n\n</details>")
    return "\n\n".join(parts)


def _table(title: str, heads: Sequence[Head], rows: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(row)} |" for row in rows]
    if not body:
        return ""
    names = " | ".join(_plain(head.short) for head in heads)
    return "\n".join([f"| {title} | {names} |", f"| --- |{' --- |' * len(heads)}", *body])


def _cells(row: Row) -> list[str]:
    mark = "**" if row.differs else ""
    return [_plain(row.key), *(f"{mark}{_plain(c)}{mark}" if c else "" for c in row.cells)]


def _figure(cell: Figure) -> str:
    if not cell.text:
        return ""
    value = f"**{_plain(cell.text)}** ★" if cell.best else _plain(cell.text)
    return f"{value} ({_plain(cell.delta)})" if cell.delta else value


def _code(code: Code) -> str:
    title = f"{_plain(code.base)} → {_plain(code.other)}"
    note = _plain(code.note) if code.note else ""
    if not code.diff:
        return f"{title}: {note or 'the same code'}"
    lines = code.diff.split("\n")
    shown = "\n".join(clean(line) for line in lines[:DIFF_LINES])
    left = len(lines) - DIFF_LINES
    more = [f"… {left:,} more lines"] if left > 0 else []
    more += ["the difference was cut"] if code.cut else []
    more += [note] if note else []
    fence = "`" * max([3, *(len(found) + 1 for found in _FENCES.findall(shown))])
    body = f"{fence}diff\n{shown.rstrip()}\n{fence}"
    summary = f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
    return "\n\n".join([summary, *more])


def _plain(words: str) -> str:
    """Write text so that nothing in it is markup, a mention or the end of a cell."""
    line = " ".join(clean(words).split())
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", line)
