"""Describing CSV files: columns, rows and profiles, read once from front to back."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from modelyard.tracking.columns import Moments

MAX_COLUMNS = 1_000


def describe_csv(path: Path) -> dict[str, Any]:
    """Return schema and row count of a CSV file with a header, for JSON; its digest apart."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        columns = [_Column(name) for name in next(rows, [])]
        count = 0
        for row in filter(None, rows):
            count += 1
            cells = itertools.chain(row, itertools.repeat(""))
            for column, cell in zip(columns, cells, strict=False):
                column.add(cell)
    schema = [column.describe(count) for column in columns[:MAX_COLUMNS]]
    return {"schema": schema, "row_count": count}


class _Column:
    """A column as it is read; a number until a cell is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._moments = Moments()
        self._nulls = 0
        self._is_whole = True
        self._is_number = True

    def add(self, cell: str) -> None:
        if not cell:
            self._nulls += 1
        elif self._is_number:
            self._add_number(cell)

    def describe(self, count: int) -> dict[str, Any]:
        if self._is_number and self._moments.count:
            kind = "int64" if self._is_whole else "float64"
            return {"name": self._name, "type": kind, "profile": self._moments.profile(count)}
        profile = {"count": count, "null_count": self._nulls}
        return {"name": self._name, "type": "string", "profile": profile}

    def _add_number(self, cell: str) -> None:
        try:
            number = float(cell)
        except ValueError:
            self._is_number = False
            return
        if self._is_whole:
            self._is_whole = cell.strip().lstrip("+-").isdigit()
        if number == number:  # noqa: PLR0124 - NaN is not equal to itself
            self._moments.add(number)
