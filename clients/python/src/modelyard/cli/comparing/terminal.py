"""A comparison in a terminal: tables for people, the difference of the code in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.cli.comparing.view import Code, Figure, Head, MetricLine, Row, View
from modelyard.cli.render import clean, console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DIFF_LINES = 80
"""So many lines of each difference are shown."""

_TONES = {"better": "green", "worse": "red", "": "dim"}


def show(view: View) -> None:
    """Write a comparison on standard output."""
    out = console()
    _show_table(out, "", view.heads, [_metric_cells(line) for line in view.metrics])
    _show_rows(out, "Parameters", view, view.params)
    _show_rows(out, "Environment", view, view.environment)
    _show_rows(out, "Packages that differ", view, view.packages)
    _show_rows(out, "Data", view, view.datasets)
    for note in view.data_notes:
        out.print(_styled(f"  {note}", "yellow"))
    _show_rows(out, "Code", view, view.sources)
    for code in view.code:
        _show_code(out, code)


def _show_rows(out: Console, title: str, view: View, rows: Sequence[Row]) -> None:
    if rows:
        _show_table(out, title, view.heads, [_row_cells(row) for row in rows])


def _show_table(
    out: Console, title: str, heads: Sequence[Head], rows: Sequence[Sequence[Text]]
) -> None:
    from rich.table import Table  # noqa: PLC0415 - `--help` need not wait for it

    if title:
        out.print()
    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    table.add_column(title, style="")
    for head in heads:
        name = f"{head.short}\n{head.title}" if head.title and not title else head.short
        table.add_column(_styled(name, "bold"), overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _row_cells(row: Row) -> list[Text]:
    style = "bold" if row.differs else "dim"
    return [_styled(row.key, style), *(_styled(cell or "-", style) for cell in row.cells)]


def _metric_cells(line: MetricLine) -> list[Text]:
    return [_styled(f"{line.key} {line.goal}".rstrip(), "cyan"), *map(_figure, line.cells)]


def _figure(cell: Figure) -> Text:
    if not cell.text:
        return _styled("-", "dim")
    shown = _styled(f"{cell.text}{' ★' if cell.best else ''}", "bold green" if cell.best else "")
    if cell.delta:
        shown.append(f"  {cell.delta}", _TONES[cell.tone])
    return shown


def _show_code(out: Console, code: Code) -> None:
    out.print()
    out.print(_styled(f"{code.base} → {code.other}", "bold"))
    if not code.diff and not code.note:
        out.print(_styled("  the same code", "dim"))
    lines = code.diff.splitlines()
    for line in lines[:DIFF_LINES]:
        out.print(_styled(line, _line_style(line)), soft_wrap=True)
    if len(lines) > DIFF_LINES:
        more = f"… {len(lines) - DIFF_LINES:,} more lines; all of it: --to comparison.html"
        out.print(_styled(more, "yellow"))
    if code.cut:
        out.print(_styled("the difference is longer than is sent, and was cut", "yellow"))
    if code.note:
        out.print(_styled(f"  {code.note}", "yellow"))


def _line_style(line: str) -> str:
    if line.startswith(("diff ", "--- ", "+++ ")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")


def _styled(words: str, style: str) -> Text:
    from rich.text import Text  # noqa: PLC0415 - `--help` need not wait for it

    return Text("\n".join(clean(line) for line in words.split("\n")), style)
