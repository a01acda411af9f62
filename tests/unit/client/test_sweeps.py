"""Sweeps: how grids are written, and which builds they are."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard._resources import sweeping
from modelyard.builder.v1 import build_pb2, build_service_pb2
from modelyard.cli.sweeping import grid
from modelyard.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("n=50,100,200", [50, 100, 200]),
        ("lr = 1e-3, 0.1", [0.001, 0.1]),
        ('kernel=rbf,"a, b", poly', ["rbf", "a, b", "poly"]),
        ('s="5",5', ["5", 5]),
        ("layers=[32],[64,32]", [[32], [64, 32]]),
        ("on=true,false,yes", [True, False, "yes"]),
        ("when=2026-11-27,02:30", ["2026-11-27", "02:30"]),
        ("one=1,1.0,true", [1, 1.0, True]),
        ("x==", ["="]),
    ],
)
def test_an_axis(text: str, values: list[object]) -> None:
    (found,) = grid([text]).values()
    assert [(type(v), v) for v in found] == [(type(v), v) for v in values]


@pytest.mark.parametrize("text", ["", "n", "n=", "=1", "n=1,", "n=,1", "n=1,,2", "n=1,1", "n=null"])
def test_what_is_no_axis(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        grid([text])


def test_a_key_twice() -> None:
    with pytest.raises(InvalidArgumentError, match="n is swept twice"):
        grid(["n=1", "n=2"])


scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(min_size=1, max_size=8),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(scalars | st.lists(scalars, max_size=3), min_size=1, max_size=6, unique_by=repr))
def test_what_is_written_as_json_keeps_its_type(values: list[object]) -> None:
    text = "key=" + ",".join(json.dumps(value) for value in values)
    assert grid([text]) == {"key": values}


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab1=,"[]{}. \\', max_size=20))
def test_any_text_is_an_axis_or_is_refused(text: str) -> None:
    try:
        found = grid([text])
    except InvalidArgumentError:
        return
    assert all(values for values in found.values())


def test_a_grid_is_every_combination_and_each_the_same_build_again() -> None:
    varied = sweeping.combinations({"n": [1, 2], "depth": [4, 8]}, {"seed": 7})
    assert varied == [
        {"n": 1, "depth": 4},
        {"n": 1, "depth": 8},
        {"n": 2, "depth": 4},
        {"n": 2, "depth": 8},
    ]
    spec = build_pb2.BuildSpec(source="projects/p/artifacts/a", group="g")
    order = build_service_pb2.CreateBuildRequest(
        parent="projects/p", build=build_pb2.Build(spec=spec), request_id="x"
    )
    first, again = sweeping.requests(order, varied), sweeping.requests(order, varied)
    assert first == again
    assert len({request.request_id for request in first}) == 4
    order.build.spec.group = ""
    one, other = sweeping.requests(order, varied), sweeping.requests(order, varied)
    assert {r.build.spec.group for r in one}.isdisjoint(r.build.spec.group for r in other)


@pytest.mark.parametrize(
    ("wanted", "params", "problem"),
    [
        ({}, {}, "needs a parameter"),
        ({"n": []}, {}, "n has no value"),
        ({"n": [1]}, {"n": 2}, "n is a parameter and swept"),
        ({str(n): list(range(10)) for n in range(9)}, {}, "1,000,000,000 combinations"),
    ],
)
def test_what_is_no_grid(
    wanted: dict[str, list[object]], params: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=problem):
        sweeping.combinations(wanted, params)


def test_nan_is_a_value() -> None:
    (found,) = grid(["x=NaN,1"])["x"][:1]
    assert isinstance(found, float)
    assert math.isnan(found)
