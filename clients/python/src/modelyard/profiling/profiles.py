"""Profiles of whole datasets: from data in memory and from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from modelyard.metadata.v1 import dataset_pb2
from modelyard.profiling.columns import NUMERIC, UNKNOWN, ColumnProfiler, kind_of, type_name
from modelyard.profiling.reading import MixedColumnError, batches, data_files

MAX_COLUMNS = 1_000
CHUNK = 65_536
SKETCH_BYTES = 1024 * 1024
"""Columns past so many bytes of sketches have none: their profiles cannot be merged."""
VALUE_BYTES = 1024 * 1024
"""Columns past so many bytes of frequent values have none."""

_SKETCHES = ("quantile_sketch", "distinct_sketch", "frequency_sketch")


@dataclass(frozen=True, slots=True)
class DatasetProfile:
    """What a DatasetVersion says of its data: columns with profiles, rows, digest."""

    schema: list[dataset_pb2.Column]
    row_count: int | None
    digest: str


def profile_columns(columns: Iterable[tuple[str, str, Any]]) -> list[dataset_pb2.Column]:
    """Return columns with profiles, of (name, type, values) each."""
    return trimmed(_profile_values(*column).column() for column in columns)


def profile_files(path: Path) -> tuple[list[dataset_pb2.Column], int] | None:
    """Return the columns and the number of rows of CSV or Parquet files; None if there are none.

    Files of different columns are not one dataset: there is no schema then, and None, too.
    """
    files, as_text = data_files(path), frozenset[int]()
    while files:
        try:
            return _profile_files(files, as_text)
        except MixedColumnError as error:
            as_text |= {error.column}
    return None


def trimmed(columns: Iterable[dataset_pb2.Column]) -> list[dataset_pb2.Column]:
    """Return at most 1,000 columns, with sketches and values while there is room for them."""
    found: list[dataset_pb2.Column] = []
    sketches = values = 0
    for column in islice(columns, MAX_COLUMNS):
        profile = column.profile
        sketches += sum(len(getattr(profile, name)) for name in _SKETCHES)
        if sketches > SKETCH_BYTES:
            profile.ClearField("quantile_sketch")
            profile.ClearField("distinct_sketch")
            profile.ClearField("frequency_sketch")
        values += sum(top.ByteSize() for top in profile.top_values)
        if values > VALUE_BYTES:
            profile.ClearField("top_values")
        found.append(column)
    return found


def _profile_files(
    files: list[Path], as_text: frozenset[int]
) -> tuple[list[dataset_pb2.Column], int] | None:
    profilers: list[ColumnProfiler] = []
    rows = 0
    for file in files:
        for batch in batches(file, as_text=as_text):
            fields = [(field.name, type_name(field.type)) for field in batch.schema]
            if not profilers:
                profilers = [
                    ColumnProfiler(field.name, type_name(field.type), kind_of(field.type))
                    for field in batch.schema
                ]
            elif fields != [(one.name, one.type) for one in profilers]:
                return None
            for profiler, chunk in zip(profilers, batch.columns, strict=True):
                profiler.add(chunk)
            rows += len(batch)
    return trimmed(one.column() for one in profilers), rows


def _profile_values(name: str, type_: str, values: Any) -> ColumnProfiler:
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return _profile_array(name, type_, values)
    chunks = _chunks(values)
    if chunks is None:
        return _unknown(name, type_, values)
    profiler = ColumnProfiler(name, type_, kind_of(chunks.type))
    for whole in chunks.chunks:
        for start in range(0, len(whole), CHUNK):
            profiler.add(whole.slice(start, CHUNK))
    return profiler


def _profile_array(name: str, type_: str, values: Any) -> ColumnProfiler:
    """Sum up an array of several dimensions: all its numbers, of whatever place."""
    if values.dtype.kind not in "iuf":
        return _unknown(name, type_, values.reshape(-1))
    profiler = ColumnProfiler(name, type_, NUMERIC, count=int(values.size))
    flat = values.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        profiler.add_numbers(flat[start : start + CHUNK].astype(np.float64))
    return profiler


def _unknown(name: str, type_: str, values: Any) -> ColumnProfiler:
    nulls = sum(value is None for value in values)
    return ColumnProfiler(name, type_, UNKNOWN, count=len(values), null_count=nulls)


def _chunks(values: Any) -> Any:
    """Return values as Arrow's; None for what it has no type for."""
    if isinstance(values, pa.ChunkedArray):
        return values
    if isinstance(values, pa.Array):
        return pa.chunked_array([values])
    if callable(getattr(values, "to_arrow", None)):
        found = values.to_arrow()
        return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])
    try:
        # A null of pandas is a null; a NaN of a plain array of floats is one, too: a NaN.
        is_pandas = hasattr(values, "iloc")
        found = pa.array(values if is_pandas else _plain(values), from_pandas=is_pandas)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return None
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


def _plain(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values if not isinstance(values, Mapping) else list(values)
