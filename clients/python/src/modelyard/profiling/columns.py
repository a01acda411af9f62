"""The profile of one column, filled chunk by chunk from Arrow arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modelyard.metadata.v1 import dataset_pb2
from modelyard.profiling.frequencies import VALUE, Frequencies
from modelyard.profiling.numbers import Doubles, Numbers

Kind = dataset_pb2.ColumnKind
NUMERIC, TEMPORAL = Kind.COLUMN_KIND_NUMERIC, Kind.COLUMN_KIND_TEMPORAL
CATEGORICAL, BOOLEAN = Kind.COLUMN_KIND_CATEGORICAL, Kind.COLUMN_KIND_BOOLEAN
UNKNOWN = Kind.COLUMN_KIND_UNSPECIFIED
MAX_TYPE = 255

_NAMES = {"double": "float64", "float": "float32", "halffloat": "float16", "large_string": "string"}


@dataclass(slots=True)
class ColumnProfiler:
    """Sums up one column."""

    name: str
    type: str
    kind: Kind.ValueType
    count: int = 0
    null_count: int = 0
    nan_count: int = 0
    numbers: Numbers = field(default_factory=Numbers)
    texts: Frequencies = field(default_factory=Frequencies)

    def add(self, chunk: Any) -> None:
        """Take an Arrow array in, of the column's type."""
        self.count += len(chunk)
        self.null_count += chunk.null_count
        if self.kind in (NUMERIC, TEMPORAL):
            self._add_numbers(chunk)
        elif self.kind in (CATEGORICAL, BOOLEAN):
            self.texts.add(_counts(chunk))

    def add_numbers(self, values: Doubles) -> None:
        """Take numbers in, NaNs among them."""
        present = values[~np.isnan(values)]
        self.nan_count += len(values) - len(present)
        self.numbers.add(present)

    def merge(self, other: ColumnProfiler) -> None:
        """Take in all that another saw, of the same column elsewhere.

        Raises:
            ValueError: They hold values of different kinds.
        """
        if self.kind != other.kind:
            raise ValueError(f"column {self.name!r} holds values of different kinds")
        self.count += other.count
        self.null_count += other.null_count
        self.nan_count += other.nan_count
        self.numbers.merge(other.numbers)
        self.texts.merge(other.texts)

    def column(self) -> dataset_pb2.Column:
        """Return the column with its profile."""
        profile = dataset_pb2.ColumnProfile(
            count=self.count,
            null_count=self.null_count,
            nan_count=self.nan_count,
            kind=self.kind,
        )
        if self.kind in (NUMERIC, TEMPORAL):
            _put_numbers(profile, self.numbers)
        elif self.kind in (CATEGORICAL, BOOLEAN):
            _put_texts(profile, self.texts)
        return dataset_pb2.Column(name=self.name, type=self.type, profile=profile)

    def _add_numbers(self, chunk: Any) -> None:
        filled = chunk.drop_null() if chunk.null_count else chunk
        if self.kind == TEMPORAL:
            self.add_numbers(_seconds(filled))
            return
        if not pa.types.is_float64(filled.type):
            filled = filled.cast(pa.float64(), safe=False)
        self.add_numbers(filled.to_numpy(zero_copy_only=False))


def kind_of(type_: Any) -> Kind.ValueType:
    """Return how values of an Arrow type are summed up."""
    is_ = pa.types
    if is_.is_boolean(type_):
        return BOOLEAN
    if is_.is_integer(type_) or is_.is_floating(type_) or is_.is_decimal(type_):
        return NUMERIC
    if is_.is_timestamp(type_) or is_.is_date(type_):
        return TEMPORAL
    if is_.is_string(type_) or is_.is_large_string(type_) or is_.is_string_view(type_):
        return CATEGORICAL
    if is_.is_dictionary(type_):
        return CATEGORICAL
    return UNKNOWN


def type_name(type_: Any) -> str:
    """Return a type's name as data in memory has it."""
    return _NAMES.get(str(type_), str(type_))[:MAX_TYPE]


def _counts(chunk: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in pc.value_counts(chunk).to_pylist():
        if entry["values"] is None:
            continue
        text = _text(entry["values"])
        found[text] = found.get(text, 0) + entry["counts"]
    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).replace("\0", "�")[:VALUE]


def _seconds(filled: Any) -> Doubles:
    """Return moments as seconds since 1970; those without a time zone as if in UTC."""
    microseconds = filled.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    seconds: Doubles = microseconds.to_numpy(zero_copy_only=False) / 1e6
    return seconds


def _put_numbers(profile: dataset_pb2.ColumnProfile, numbers: Numbers) -> None:
    count = numbers.moments.count
    if not count:
        return
    profile.min, profile.max = numbers.least, numbers.greatest
    deviation = math.sqrt(numbers.moments.squares / count) if numbers.moments.squares >= 0 else 0.0
    if math.isfinite(numbers.moments.mean) and math.isfinite(deviation):
        profile.mean, profile.std = numbers.moments.mean, deviation
    profile.quantiles.extend(numbers.points())
    edges, counts = numbers.histogram()
    if counts:
        profile.histogram.edges.extend(edges)
        profile.histogram.counts.extend(counts)
    profile.quantile_sketch = bytes(numbers.quantiles.serialize())
    if numbers.exact is None:
        profile.distinct_count = numbers.distinct.estimate()
        profile.distinct_sketch = numbers.distinct.serialise()
        return
    profile.distinct_count = len(numbers.exact)
    for value, times in sorted(numbers.exact.items(), key=lambda item: (-item[1], item[0])):
        profile.top_values.add(value=repr(value), count=times)


def _put_texts(profile: dataset_pb2.ColumnProfile, texts: Frequencies) -> None:
    profile.distinct_count = texts.distinct_count()
    for value, count in texts.top():
        profile.top_values.add(value=value, count=count)
    profile.distinct_sketch, profile.frequency_sketch = texts.sketches()
