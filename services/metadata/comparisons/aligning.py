"""Subjects side by side, row by row: pure, in the subjects' order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.common.names import ModelName
from services.metadata.comparisons.domain import (
    DatasetRow,
    FactRow,
    MetricCell,
    MetricRow,
    PackageRow,
    ParamRow,
    Subject,
)
from services.metadata.models.domain import MetricGoal
from services.metadata.runs.domain import RuntimeEnvironment
from services.metadata.values import ParamValue, is_better, pack

Goals = Mapping[ModelName, Mapping[str, MetricGoal]]

_FACTS = (
    "python_version",
    "python_implementation",
    "platform",
    "cpu",
    "cpu_count",
    "memory_bytes",
    "gpus",
    "gpu_driver",
    "hostname",
)


def params(subjects: Sequence[Subject]) -> list[ParamRow]:
    """Align the parameters by key; one that not all have differs."""
    keys = sorted({key for subject in subjects for key in subject.params})
    return [_param_row(key, subjects) for key in keys]


def metrics(subjects: Sequence[Subject], goals: Goals) -> list[MetricRow]:
    """Align the metrics by key, with differences from the first and the best by goal."""
    keys = sorted({key for subject in subjects for key in subject.metrics})
    return [_metric_row(key, subjects, _goal(key, goals)) for key in keys]


def environment(subjects: Sequence[Subject]) -> list[FactRow]:
    """Align the facts that any subject has; one whose environment is unknown differs in none."""
    rows = []
    for key in _FACTS:
        values = tuple(_fact(subject.environment, key) for subject in subjects)
        known = {v for v, s in zip(values, subjects, strict=True) if s.environment is not None}
        if any(values):
            rows.append(FactRow(key, values, len(known) > 1))
    images = tuple(subject.image for subject in subjects)
    if any(images):
        rows.append(FactRow("image", images, len(set(images)) > 1))
    return rows


def packages(subjects: Sequence[Subject]) -> list[PackageRow]:
    """Align the distributions that differ; a subject whose packages are unknown tells nothing."""
    found = [dict(s.environment.packages) if s.environment else {} for s in subjects]
    known = [own for own in found if own]
    names = sorted({name for own in known for name in own})
    return [
        PackageRow(name, tuple(own.get(name, "") for own in found))
        for name in names
        if len({own.get(name, "") for own in known}) > 1
    ]


def datasets(subjects: Sequence[Subject]) -> list[DatasetRow]:
    """Align the dataset versions by role, without saying yet how their data differs."""
    roles = sorted({use.role for subject in subjects for use in subject.datasets})
    rows = []
    for role in roles:
        used = tuple(
            tuple(sorted(use.dataset_version for use in subject.datasets if use.role == role))
            for subject in subjects
        )
        rows.append(DatasetRow(role, used, len(set(used)) > 1))
    return rows


def dataset_pairs(row: DatasetRow) -> list[tuple[str, str]]:
    """Return which dataset versions are to be held against the first one's, each pair once."""
    first, *others = row.dataset_versions
    if len(first) != 1:
        return []
    found = dict.fromkeys(other[0] for other in others if len(other) == 1)
    return [(first[0], name) for name in found if name != first[0]]


def _param_row(key: str, subjects: Sequence[Subject]) -> ParamRow:
    values = tuple(subject.params.get(key) for subject in subjects)
    return ParamRow(key, values, len({_identity(value) for value in values}) > 1)


def _identity(value: ParamValue | None) -> bytes | None:
    """Return what two values share only if they are the same, type and NaN included."""
    return None if value is None else pack(value)


def _metric_row(key: str, subjects: Sequence[Subject], goal: MetricGoal | None) -> MetricRow:
    values = [subject.metrics.get(key) for subject in subjects]
    best: float | None = None
    for value in values:
        if goal is not None and value is not None:
            maximize = goal is MetricGoal.MAXIMIZE
            best = value if is_better(value, best, maximize=maximize) else best
    first = values[0]
    cells = [
        MetricCell(
            value=value,
            delta=None if value is None or first is None else _delta(value, first),
            best=value is not None and best is not None and value == best,
        )
        for value in values
    ]
    return MetricRow(key, tuple(cells), goal)


def _delta(value: float, first: float) -> float:
    """Return the difference; two equal infinities differ by nothing."""
    return 0.0 if value == first else value - first


def _goal(key: str, goals: Goals) -> MetricGoal | None:
    """Return the goal of a metric if the models that have one agree."""
    found = {own[key] for own in goals.values() if key in own}
    return found.pop() if len(found) == 1 else None


def _fact(environment: RuntimeEnvironment | None, key: str) -> str:
    if environment is None:
        return ""
    value = getattr(environment, key)
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value) if value else ""
