"""Datasets and their versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.common.names import DatasetName, DatasetVersionName


class ColumnKind(StrEnum):
    """How a column's values are summed up and compared."""

    UNKNOWN = "UNKNOWN"
    NUMERIC = "NUMERIC"
    CATEGORICAL = "CATEGORICAL"
    BOOLEAN = "BOOLEAN"
    TEMPORAL = "TEMPORAL"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many numbers fall between edges, of which there is one more than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What is in a column.

    `count` is of all values; nulls and NaNs count in no other figure. `quantiles` are those at
    0, 0.01, … 1, or none. `top_values` are (value, count), the most frequent first. Sketches
    are kept for clients to merge; nothing here reads them.
    """

    count: int
    null_count: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    kind: ColumnKind = ColumnKind.UNKNOWN
    nan_count: int = 0
    quantiles: tuple[float, ...] = ()
    distinct_count: int | None = None
    top_values: tuple[tuple[str, int], ...] = ()
    histogram: Histogram | None = None
    quantile_sketch: bytes = b""
    distinct_sketch: bytes = b""
    frequency_sketch: bytes = b""

    @property
    def filled_count(self) -> int:
        """Return how many values are neither null nor NaN."""
        return self.count - self.null_count - self.nan_count


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a dataset."""

    name: str
    type: str
    profile: ColumnProfile | None = None


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """Where data came from and what was taken of it."""

    uri: str = ""
    query: str = ""
    columns: tuple[str, ...] = ()
    filters: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named line of dataset versions."""

    name: DatasetName
    description: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class DatasetVersionDraft:
    """What the caller says of a dataset version."""

    digest: str
    source: DatasetSource | None
    schema: tuple[Column, ...]
    row_count: int | None
    artifact: str


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One immutable state of a dataset."""

    name: DatasetVersionName
    digest: str
    source: DatasetSource | None
    schema: tuple[Column, ...]
    row_count: int | None
    artifact: str
    creator: str
    create_time: datetime


class SchemaChangeKind(StrEnum):
    """How a column differs."""

    ADDED = "ADDED"
    REMOVED = "REMOVED"
    TYPE_CHANGED = "TYPE_CHANGED"


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A column that differs; a type is empty where the column is not."""

    column: str
    kind: SchemaChangeKind
    old_type: str
    new_type: str


class QualityChangeKind(StrEnum):
    """What changed about the quality of a column."""

    MORE_NULLS = "MORE_NULLS"
    MORE_NANS = "MORE_NANS"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    NEW_CATEGORIES = "NEW_CATEGORIES"
    CONSTANT = "CONSTANT"


@dataclass(frozen=True, slots=True)
class QualityChange:
    """One thing that became worse, or may have."""

    kind: QualityChangeKind
    description: str


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a column's values moved: PSI, Jensen-Shannon distance, and PSI's threshold."""

    psi: float
    js_distance: float
    threshold: float

    @property
    def is_drifted(self) -> bool:
        """Say whether it moved further than chance and custom allow."""
        return self.psi > self.threshold


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """How a column's values differ; without `drift`, `note` says why there is none."""

    column: str
    quality_changes: tuple[QualityChange, ...]
    drift: Drift | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class DatasetDifference:
    """How one dataset version differs from another."""

    base: DatasetVersion
    other: DatasetVersion
    schema_changes: tuple[SchemaChange, ...] = ()
    columns: tuple[ColumnDifference, ...] = ()

    @property
    def is_same(self) -> bool:
        """Say whether both hold the same data."""
        return self.base.digest == self.other.digest
