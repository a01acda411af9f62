"""What became of a dataset: its columns, their quality, and how far their values moved."""

from __future__ import annotations

import math
from collections.abc import Iterator

from services.metadata.datasets import drifting
from services.metadata.datasets.distributions import Distribution
from services.metadata.datasets.domain import (
    Column,
    ColumnDifference,
    ColumnKind,
    ColumnProfile,
    DatasetDifference,
    DatasetVersion,
    QualityChange,
    QualityChangeKind,
    SchemaChange,
    SchemaChangeKind,
)

_SIGNIFICANT = 3.09
"""Standard deviations that chance passes once in a thousand times."""
_BY_CHANCE = 0.001
_NOTABLE = 0.005
_NAMED = 5


def compare_versions(base: DatasetVersion, other: DatasetVersion) -> DatasetDifference:
    """Say how one dataset version differs from another, judged by their profiles."""
    if base.digest == other.digest:
        return DatasetDifference(base, other)
    after = {column.name: column for column in other.schema}
    return DatasetDifference(
        base,
        other,
        schema_changes=tuple(_schema_changes(base, other)),
        columns=tuple(
            _column(before, after[before.name]) for before in base.schema if before.name in after
        ),
    )


def _schema_changes(base: DatasetVersion, other: DatasetVersion) -> Iterator[SchemaChange]:
    before = {column.name: column.type for column in base.schema}
    after = {column.name: column.type for column in other.schema}
    for name, kind in before.items():
        if name not in after:
            yield SchemaChange(name, SchemaChangeKind.REMOVED, kind, "")
        elif after[name] != kind:
            yield SchemaChange(name, SchemaChangeKind.TYPE_CHANGED, kind, after[name])
    for name, kind in after.items():
        if name not in before:
            yield SchemaChange(name, SchemaChangeKind.ADDED, "", kind)


def _column(before: Column, after: Column) -> ColumnDifference:
    if before.profile is None or after.profile is None:
        return ColumnDifference(before.name, (), None, "a version has no profile of it")
    changes = tuple(_quality_changes(before.profile, after.profile))
    found = drifting.drift(before.profile, after.profile)
    if isinstance(found, str):
        return ColumnDifference(before.name, changes, None, found)
    return ColumnDifference(before.name, changes, found)


def _quality_changes(before: ColumnProfile, after: ColumnProfile) -> Iterator[QualityChange]:
    counts = (
        (QualityChangeKind.MORE_NULLS, "nulls", before.null_count, after.null_count),
        (QualityChangeKind.MORE_NANS, "NaNs", before.nan_count, after.nan_count),
    )
    for kind, word, old, new in counts:
        if _is_more(old, before.count, new, after.count):
            shares = f"{_percent(new, after.count)} {word}, before {_percent(old, before.count)}"
            yield QualityChange(kind, shares)
    if before.kind is not after.kind or not before.filled_count or not after.filled_count:
        return
    if before.kind is ColumnKind.NUMERIC:
        yield from _ranges(before, after)
    elif before.kind in (ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN):
        yield from _categories(before, after)
    if _is_constant(after) and not _is_constant(before):
        yield QualityChange(QualityChangeKind.CONSTANT, "every value is the same now")


def _is_more(old: int, old_total: int, new: int, new_total: int) -> bool:
    """Say whether a share grew: by the pooled test of two proportions, and by enough to matter."""
    if not old_total or not new_total or not new:
        return False
    before, after = old / old_total, new / new_total
    pooled = (old + new) / (old_total + new_total)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / old_total + 1 / new_total))
    if after - before <= _SIGNIFICANT * deviation:
        return False
    return old == 0 or after - before >= _NOTABLE


def _ranges(before: ColumnProfile, after: ColumnProfile) -> Iterator[QualityChange]:
    if None in (before.min, before.max, after.min, after.max):
        return
    assert before.min is not None and before.max is not None  # noqa: S101, PT018 - seen above
    assert after.min is not None and after.max is not None  # noqa: S101, PT018
    values, width = Distribution.of(after), before.max - before.min
    below = values.surely_below(before.min)
    above = values.surely_above(before.max)
    if _is_outside(below, before, after) or before.min - after.min > width > 0:
        text = f"the least is {after.min:g}, before {before.min:g}"
        yield QualityChange(QualityChangeKind.OUT_OF_RANGE, text)
    if _is_outside(above, before, after) or after.max - before.max > width > 0:
        text = f"the greatest is {after.max:g}, before {before.max:g}"
        yield QualityChange(QualityChangeKind.OUT_OF_RANGE, text)


def _is_outside(share: float, before: ColumnProfile, after: ColumnProfile) -> bool:
    """Say whether more values pass an extreme of the base than chance explains.

    Of n and m values of one distribution, k of the m or more are beyond all of the n about
    once in ((n + m) / m)^k times, whatever the distribution.
    """
    n, m = before.filled_count, after.filled_count
    return math.pow(m / (n + m), share * m) < _BY_CHANCE


def _categories(before: ColumnProfile, after: ColumnProfile) -> Iterator[QualityChange]:
    if not drifting.is_complete(before):
        return  # a value that is not among the base's frequent ones may be there all the same
    known = {value for value, _ in before.top_values}
    new = [value for value, _ in after.top_values if value not in known]
    if new:
        named = ", ".join(repr(value[:40]) for value in new[:_NAMED])
        more = f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
        yield QualityChange(QualityChangeKind.NEW_CATEGORIES, f"new: {named}{more}")


def _is_constant(profile: ColumnProfile) -> bool:
    if profile.kind in (ColumnKind.CATEGORICAL, ColumnKind.BOOLEAN):
        return len(profile.top_values) == 1 and drifting.is_complete(profile)
    return profile.min is not None and profile.min == profile.max


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %" if whole else "0 %"
