"""Versions side by side: pure, the order of versions as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.common.names import ModelName
from services.metadata.models.domain import (
    Comparison,
    MetricCell,
    MetricGoal,
    MetricRow,
    ParamRow,
    Version,
)
from services.metadata.values import is_better, same


def compare(
    versions: Sequence[Version], goals: Mapping[ModelName, Mapping[str, MetricGoal]]
) -> Comparison:
    """Align parameters and metrics; differences are from the first version."""
    params = sorted({key for version in versions for key in version.params})
    metrics = sorted({key for version in versions for key in version.metrics})
    return Comparison(
        versions=versions,
        params=[_param_row(key, versions) for key in params],
        metrics=[_metric_row(key, versions, _goal(key, goals)) for key in metrics],
    )


def _param_row(key: str, versions: Sequence[Version]) -> ParamRow:
    values = tuple(version.params.get(key) for version in versions)
    first = values[0]
    differs = any(
        (value is None) != (first is None)
        or (value is not None and first is not None and not same(value, first))
        for value in values
    )
    return ParamRow(key, values, differs)


def _metric_row(key: str, versions: Sequence[Version], goal: MetricGoal | None) -> MetricRow:
    values = [version.metrics.get(key) for version in versions]
    best: float | None = None
    for value in values:
        if goal is not None and value is not None:
            maximize = goal is MetricGoal.MAXIMIZE
            best = value if is_better(value, best, maximize=maximize) else best
    first = values[0]
    cells = [
        MetricCell(
            value=value,
            delta=None if value is None or first is None else value - first,
            best=value is not None and best is not None and value == best,
        )
        for value in values
    ]
    return MetricRow(key, tuple(cells), goal)


def _goal(key: str, goals: Mapping[ModelName, Mapping[str, MetricGoal]]) -> MetricGoal | None:
    """Return the goal of a metric if the models that have one agree."""
    found = {own[key] for own in goals.values() if key in own}
    return found.pop() if len(found) == 1 else None
