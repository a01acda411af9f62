"""Datasets and their versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.common.names import DatasetName, DatasetVersionName


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What is in a column."""

    count: int
    null_count: int
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None


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
