"""Comparisons: what is compared, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.common.names import ModelName
from services.metadata.datasets.domain import DatasetDifference
from services.metadata.models.domain import MetricGoal
from services.metadata.runs.domain import CodeSource, DatasetUse, RuntimeEnvironment
from services.metadata.values import ParamValue


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the things compared: what was asked for, and what stands behind it."""

    name: str
    model: ModelName
    run: str
    version: str
    build: str
    title: str
    create_time: datetime
    creator: str
    params: Mapping[str, ParamValue]
    metrics: Mapping[str, float]
    environment: RuntimeEnvironment | None = None
    image: str = ""
    code: CodeSource | None = None
    datasets: Sequence[DatasetUse] = ()
    bundle: str = ""
    """The artifact of the version; empty without one."""


@dataclass(frozen=True, slots=True)
class ParamRow:
    """One parameter across the subjects."""

    key: str
    values: tuple[ParamValue | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class MetricCell:
    """One metric of one subject, its difference from the first, and whether it is best."""

    value: float | None
    delta: float | None
    best: bool


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric across the subjects."""

    key: str
    cells: tuple[MetricCell, ...]
    goal: MetricGoal | None


@dataclass(frozen=True, slots=True)
class FactRow:
    """One fact of the environment across the subjects; empty where there is none."""

    key: str
    values: tuple[str, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One distribution that differs across the subjects; empty where it is not installed."""

    name: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodeDifference:
    """How one subject's code differs from the first one's, and what cannot be told."""

    unified_diff: str = ""
    cut: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """The data used in one role across the subjects."""

    role: str
    dataset_versions: tuple[tuple[str, ...], ...]
    differs: bool
    differences: tuple[DatasetDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The subjects side by side; the others are held against the first."""

    subjects: Sequence[Subject]
    params: Sequence[ParamRow]
    metrics: Sequence[MetricRow]
    environment: Sequence[FactRow]
    packages: Sequence[PackageRow]
    datasets: Sequence[DatasetRow]
    code: Sequence[CodeDifference] = field(default=())
