"""Tracking: logging a run from training code.

Every `log_*` appends one record to a spool file and returns; a process of its own ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelyard.tracking.run import ActiveRun
from modelyard.tracking.start import active_run, require_run, start_run

__all__ = [
    "ActiveRun",
    "active_run",
    "log_dataset",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "set_tag",
    "set_tags",
    "start_run",
]


def log_metric(key: str, value: Any, *, step: int | None = None) -> None:
    """Log a number to the active run; without a step, the metric's points are counted from 0."""
    require_run().log_metric(key, value, step=step)


def log_metrics(metrics: Mapping[str, Any], *, step: int | None = None) -> None:
    """Log several numbers of one step to the active run."""
    require_run().log_metrics(metrics, step=step)


def log_param(key: str, value: Any) -> None:
    """Log a parameter to the active run; it keeps its type and its first value."""
    require_run().log_param(key, value)


def log_params(params: Mapping[str, Any]) -> None:
    """Log parameters to the active run; a second value for one raises ValueError."""
    require_run().log_params(params)


def set_tag(key: str, value: Any) -> None:
    """Set a tag of the active run; the last value stays."""
    require_run().set_tag(key, value)


def set_tags(tags: Mapping[str, Any]) -> None:
    """Set tags of the active run; the last value of each stays."""
    require_run().set_tags(tags)


def log_dataset(
    role: str,
    data: Any,
    *,
    name: str | None = None,
    source: str = "",
    query: str = "",
    columns: Sequence[str] = (),
    filters: str = "",
    start: datetime | None = None,
    end: datetime | None = None,
) -> str:
    """Log which data the active run uses, as what; return the data's digest.

    Args:
        role: What it is used as, such as `train`.
        data: A data frame or table, an array, an (X, y) pair, a mapping of columns, or a path.
        name: The dataset's id; `<model>-<role>` when left out.
        source: Where it came from, such as `s3://bucket/path`.
        query: The query that selected it.
        columns: The columns taken; all when empty.
        filters: The rows taken, in the source's words.
        start: The first moment that the data covers.
        end: The first moment after the data.
    """
    return require_run().log_dataset(
        role,
        data,
        name=name,
        source=source,
        query=query,
        columns=columns,
        filters=filters,
        start=start,
        end=end,
    )
