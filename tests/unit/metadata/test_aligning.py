"""Subjects side by side: what differs, by how much, and which is best."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from services.common.names import ModelName
from services.metadata.comparisons import aligning
from services.metadata.comparisons.domain import Subject
from services.metadata.models.domain import MetricGoal
from services.metadata.runs.domain import DatasetUse, RuntimeEnvironment

CHURN, OTHER = ModelName("p", "churn"), ModelName("p", "other")
UP, DOWN = MetricGoal.MAXIMIZE, MetricGoal.MINIMIZE


def subject(**fields: Any) -> Subject:
    empty: dict[str, Any] = {
        "name": "n",
        "model": CHURN,
        "run": "",
        "version": "",
        "build": "",
        "title": "",
        "create_time": datetime(2026, 1, 1, tzinfo=UTC),
        "creator": "",
        "params": {},
        "metrics": {},
    }
    return Subject(**{**empty, **fields})


@pytest.mark.parametrize(
    ("values", "differs"),
    [
        ((1, 1), False),
        ((1, 1.0), True),
        ((True, 1), True),
        ((math.nan, math.nan), False),
        (([1, 2], [1, 2]), False),
        (([1, 2], [2, 1]), True),
        (("a", None), True),
    ],
)
def test_params_differ_by_value_type_and_presence(values: tuple[Any, Any], differs: bool) -> None:
    own = [{"k": value} if value is not None else {} for value in values]
    (row,) = aligning.params([subject(params=found) for found in own])
    assert row.differs is differs
    assert len(row.values) == 2


@pytest.mark.parametrize(
    ("goal", "values", "best"),
    [
        (UP, [1.0, 3.0, 3.0], [False, True, True]),
        (DOWN, [1.0, 3.0, math.nan], [True, False, False]),
        (UP, [math.nan, math.nan], [False, False]),
        (DOWN, [-math.inf, 0.0], [True, False]),
        (None, [1.0, 2.0], [False, False]),
    ],
)
def test_the_best_by_goal(goal: MetricGoal | None, values: list[float], best: list[bool]) -> None:
    goals = {CHURN: {"m": goal} if goal else {}}
    (row,) = aligning.metrics([subject(metrics={"m": value}) for value in values], goals)
    assert [cell.best for cell in row.cells] == best
    assert row.goal is goal


def test_deltas_are_from_the_first_and_goals_must_agree() -> None:
    subjects = [
        subject(metrics={"m": math.inf, "n": 1.0}),
        subject(metrics={"m": math.inf}),
        subject(metrics={"m": 1.0, "n": 4.0}, model=OTHER),
    ]
    goals = {CHURN: {"m": UP, "n": UP}, OTHER: {"m": DOWN}}
    first, second = aligning.metrics(subjects, goals)
    assert [cell.delta for cell in first.cells] == [0.0, 0.0, -math.inf]
    assert first.goal is None
    assert [cell.delta for cell in second.cells] == [0.0, None, 3.0]
    assert second.goal is UP


def test_what_is_unknown_differs_in_nothing() -> None:
    one = RuntimeEnvironment(python_version="3.11", packages=(("numpy", "1"), ("torch", "2")))
    two = RuntimeEnvironment(python_version="3.11", packages=(("numpy", "1"),), gpus=("L4",))
    subjects = [subject(environment=found) for found in (one, two, None)]
    rows = {row.key: row.differs for row in aligning.environment(subjects)}
    assert rows == {"python_version": False, "gpus": True}
    (package,) = aligning.packages(subjects)
    assert (package.name, package.versions) == ("torch", ("2", "", ""))


def test_data_by_role() -> None:
    def using(*names: str) -> Subject:
        return subject(datasets=tuple(DatasetUse("train", name) for name in names))

    (row,) = aligning.datasets([using("a"), using("b"), using("a"), using("b"), using("b", "c")])
    assert row.differs
    assert row.dataset_versions == (("a",), ("b",), ("a",), ("b",), ("b", "c"))
    assert aligning.dataset_pairs(row) == [("a", "b")]
    (row,) = aligning.datasets([using("b", "a"), using("a", "b")])
    assert not row.differs
    assert aligning.dataset_pairs(row) == []
