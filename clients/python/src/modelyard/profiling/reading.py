"""Files of data as Arrow batches, so that none is ever whole in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

SUFFIXES = (".csv", ".parquet")
_BLOCK_BYTES = 4 * 1024 * 1024
_COLUMN = re.compile(r"In CSV column #(\d+)")


class MixedColumnError(ValueError):
    """A CSV column began as numbers and goes on as something else; `column` is its place."""

    def __init__(self, column: int) -> None:
        super().__init__(f"column {column} holds values of different types")
        self.column = column


def data_files(path: Path) -> list[Path]:
    """Return the CSV or Parquet files of a folder, or the file itself; by path."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in SUFFIXES]


def batches(path: Path, *, as_text: frozenset[int]) -> Iterator[Any]:
    """Yield a file's record batches; `as_text` are places of CSV columns to take as text.

    Raises:
        MixedColumnError: Begin again with this column taken as text.
        ValueError: The file is not what its name says.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches()
            return
        yield from _csv_batches(path, as_text)
    except pa.ArrowInvalid as error:
        found = _COLUMN.search(str(error))
        if found and int(found[1]) not in as_text:
            raise MixedColumnError(int(found[1])) from error
        raise ValueError(f"{path} cannot be read: {error}") from error


def _csv_batches(path: Path, as_text: frozenset[int]) -> Iterator[Any]:
    if path.stat().st_size == 0:
        return
    # Names need not be unique, and types are given by name: the places are the names here.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = _header(file)
    read = pyarrow.csv.ReadOptions(
        block_size=_BLOCK_BYTES, skip_rows=1, column_names=[str(i) for i in range(len(names))]
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(
        column_types={str(place): pa.string() for place in as_text}, strings_can_be_null=True
    )
    with pyarrow.csv.open_csv(path, read, parse, convert) as reader:
        for batch in reader:
            yield batch.rename_columns(names)


def _header(file: Any) -> list[str]:
    import csv  # noqa: PLC0415 - of the standard library, not Arrow's

    return next(csv.reader(file), [])
