"""Drift between profiles: chance is seldom taken for it, a shift seldom missed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from modelyard.profiling import profile

from services.common.names import DatasetVersionName
from services.metadata.datasets import profiles
from services.metadata.datasets.differences import compare_versions
from services.metadata.datasets.domain import Column, ColumnDifference, DatasetVersion

REPETITIONS = 200
Generator = np.random.Generator
Draw = Callable[[Generator, int], Any]


def version(number: int, data: Any) -> DatasetVersion:
    """Make a dataset version as the service keeps it."""
    found = profile(data)
    return DatasetVersion(
        name=DatasetVersionName("default", "prices", number),
        digest=found.digest,
        source=None,
        schema=tuple(
            Column(column.name, column.type, profiles.read(column.profile, "profile"))
            for column in found.schema
        ),
        row_count=found.row_count,
        artifact="",
        creator="user:me",
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def compared(before: Any, after: Any) -> ColumnDifference:
    """Compare two columns."""
    (found,) = compare_versions(version(1, {"a": before}), version(2, {"a": after})).columns
    return found


def flagged(draw: Draw, change: Draw, rows: int) -> int:
    """Return how many of 200 columns are said to have drifted."""
    random = np.random.default_rng(rows)
    count = 0
    for _ in range(REPETITIONS):
        drift = compared(draw(random, rows), change(random, rows)).drift
        assert drift is not None
        assert drift.threshold >= 0.1
        assert 0 <= drift.js_distance <= 1
        count += drift.is_drifted
    return count


DRAWS: dict[str, tuple[Draw, Draw]] = {
    "normal": (
        lambda random, rows: random.normal(10, 3, rows),
        lambda random, rows: random.normal(10 + 0.5 * 3, 3, rows),
    ),
    "exponential": (
        lambda random, rows: random.exponential(2, rows),
        lambda random, rows: random.exponential(2, rows) + 0.5 * 2,
    ),
    "counts": (
        lambda random, rows: random.poisson(9, rows),
        lambda random, rows: random.poisson(9, rows) + random.binomial(3, 0.5, rows),
    ),
    "categories": (
        lambda random, rows: random.choice(list("abcde"), rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
        lambda random, rows: random.choice(list("abcde"), rows, p=[0.2, 0.3, 0.15, 0.25, 0.1]),
    ),
}


@pytest.mark.parametrize(
    "rows", [1_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (500, 3_000, 20_000))]
)
@pytest.mark.parametrize("name", DRAWS)
def test_resamples_are_seldom_flagged_and_shifts_seldom_missed(name: str, rows: int) -> None:
    same, shifted = DRAWS[name]
    assert flagged(same, same, rows) <= 0.05 * REPETITIONS
    assert flagged(same, shifted, rows) >= 0.95 * REPETITIONS


def test_parts_of_different_sizes_are_held_against_each_other_fairly() -> None:
    random = np.random.default_rng(3)
    count = 0
    for _ in range(REPETITIONS):
        drift = compared(random.normal(size=5_000), random.normal(size=100)).drift
        assert drift is not None
        assert drift.threshold > 0.1
        count += drift.is_drifted
    assert count <= 0.05 * REPETITIONS


@pytest.mark.parametrize(
    ("before", "after", "drifts"),
    [
        ([5.0] * 400, [5.0] * 400 + [5.0], False),
        ([5.0] * 400, [6.0] * 400, True),
        ([5.0] * 400, [4.0] * 400, True),
        ([0.0] * 350 + [1.0] * 50, [0.0] * 349 + [1.0] * 51, False),
        ([0.0] * 350 + [1.0] * 50, [0.0] * 200 + [1.0] * 200, True),
        ([0, 1] * 300, [0, 1] * 290 + [7] * 20, True),
        (["a"] * 300, ["b"] * 300, True),
        ([True, False] * 200, [True, False] * 190 + [True], False),
        ([True, False] * 200, [True] * 300 + [False] * 100, True),
    ],
)
def test_columns_of_few_values(before: list[Any], after: list[Any], *, drifts: bool) -> None:
    drift = compared(before, after).drift
    assert drift is not None
    assert drift.is_drifted is drifts


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ([1.0] * 99 + [None], [1.0] * 60 + [None] * 40, {"MORE_NULLS"}),
        ([1.0] * 98 + [None] * 2, [1.0] * 97 + [None] * 3, set()),
        ([1.0, 2.0] * 200, [1.0, 2.0] * 100 + [float("nan")] * 60, {"MORE_NANS"}),
        (list(range(1_000)), list(range(2_500)), {"OUT_OF_RANGE"}),
        (list(range(1_000)), list(range(999)), set()),
        (list("ab") * 50, list("abc") * 50, {"NEW_CATEGORIES"}),
        (list("ab") * 50, list("a") * 50, {"CONSTANT"}),
        ([1.0, 2.0] * 50, [1.0] * 50, {"CONSTANT"}),
    ],
)
def test_quality(before: list[Any], after: list[Any], kinds: set[str]) -> None:
    assert {change.kind.value for change in compared(before, after).quality_changes} == kinds


def test_extremes_of_resamples_are_seldom_called_out_of_range() -> None:
    random = np.random.default_rng(11)
    found = [
        compared(random.exponential(size=2_000), random.exponential(size=2_000))
        for _ in range(REPETITIONS)
    ]
    assert sum(bool(one.quality_changes) for one in found) <= 0.02 * REPETITIONS


def test_what_cannot_be_compared_says_why() -> None:
    ids = [f"id-{number}" for number in range(3_000)]
    for before, after, words in (
        (ids, [f"{one}x" for one in ids], "too many different values"),
        ([1.0], ["a"], "another kind"),
        ([None], [None, None], "there are no values"),
        ([1.0], [None], "another kind"),
        (np.array(["2026-01-01"], "M8[s]"), np.array(["2026-02-01"], "M8[s]"), "moments"),
        ([[1], [2]], [[1], [3]], "does not say what kind"),
    ):
        found = compared(before, after)
        assert found.drift is None
        assert words in found.note


def test_schema() -> None:
    before, after = version(1, {"a": [1], "b": [1], "c": ["x"]}), version(2, {"b": [1.5], "d": [1]})
    found = compare_versions(before, after)
    assert [(c.column, c.kind.value, c.old_type, c.new_type) for c in found.schema_changes] == [
        ("a", "REMOVED", "int64", ""),
        ("b", "TYPE_CHANGED", "int64", "float64"),
        ("c", "REMOVED", "string", ""),
        ("d", "ADDED", "", "int64"),
    ]
    assert compare_versions(before, before).is_same
    assert not compare_versions(before, before).columns
