"""Drift by formula, and of columns of which not every value is listed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from services.metadata.datasets.distributions import Distribution
from services.metadata.datasets.domain import ColumnKind, ColumnProfile, Drift
from services.metadata.datasets.drifting import _chi_squared_99, drift


def texts(listed: Mapping[str, int], *, count: int = 0) -> ColumnProfile:
    """Make the profile of a column of text of which some values are listed."""
    return ColumnProfile(
        count=count or sum(listed.values()),
        null_count=0,
        kind=ColumnKind.CATEGORICAL,
        top_values=tuple(listed.items()),
    )


def numbers(*quantiles: float, count: int = 1_000) -> ColumnProfile:
    """Make the profile of a column of numbers."""
    return ColumnProfile(count, 0, kind=ColumnKind.NUMERIC, quantiles=quantiles)


def drifted(base: ColumnProfile, other: ColumnProfile) -> Drift:
    """Compare two columns of which it can be said."""
    found = drift(base, other)
    assert isinstance(found, Drift), found
    return found


def test_the_formulas() -> None:
    found = drifted(texts({"a": 500, "b": 500}), texts({"a": 750, "b": 250}))
    p, q = 500.5 / 1_001, 750.5 / 1_001
    m = (p + q) / 2
    assert found.psi == pytest.approx((q - p) * math.log(q / p) + (p - q) * math.log((1 - q) / p))
    js = p * math.log2(p / m) + p * math.log2(p / (1 - m))
    js += q * math.log2(q / m) + (1 - q) * math.log2((1 - q) / (1 - m))
    assert found.js_distance == pytest.approx(math.sqrt(js / 2))
    assert found.threshold == 0.1
    few = drifted(texts({"a": 10, "b": 10}), texts({"a": 10, "b": 10}))
    assert few.threshold == pytest.approx(0.1 * 6.635, rel=0.02)
    apart = drifted(texts({"a": 10_000}), texts({"b": 10_000}))
    assert 0.99 < apart.js_distance <= 1


@pytest.mark.parametrize(("freedom", "wanted"), [(1, 6.635), (2, 9.210), (9, 21.666), (99, 134.64)])
def test_the_percentile_is_near_the_tables(freedom: int, wanted: float) -> None:
    assert _chi_squared_99(freedom) == pytest.approx(wanted, rel=0.02)


def test_shortened_lists_say_what_they_leave_possible() -> None:
    two = {"a": 500, "b": 500}
    names = {f"id-{number:03}": 2 for number in range(100)}
    assert drifted(texts(two), texts(names, count=1_000)).is_drifted
    assert drifted(texts(names, count=1_000), texts(two)).is_drifted
    assert drifted(texts(two), texts({}, count=1_000)).is_drifted
    # What is as rare as what is listed may be among the rest.
    rare = {f"v{number:03}": 10 for number in range(100)}
    more = {f"v{number:03}": 10 for number in range(5, 105)}
    found = drifted(texts(rare, count=1_050), texts(more, count=1_050))
    assert found.psi == pytest.approx(0)
    heavy = {"a": 400, **dict.fromkeys(names, 1)}
    light = {"a": 100, **dict.fromkeys(names, 1)}
    assert drifted(texts(heavy, count=1_000), texts(light, count=1_000)).is_drifted
    assert not drifted(texts(heavy, count=1_000), texts(heavy, count=1_000)).is_drifted
    unlike = drift(texts(names, count=1_000), texts({}, count=1_000))
    assert unlike == "there are too many different values"


def test_infinities_and_points_of_mass() -> None:
    steady = numbers(*(float(place) for place in range(101)))
    ends = numbers(-math.inf, *(float(place) for place in range(1, 100)), math.inf)
    assert drifted(steady, ends).psi == pytest.approx(0, abs=1e-9)
    assert drifted(ends, ends).psi == 0
    heap = numbers(*[0.0] * 60, *(float(place) for place in range(41)))
    assert drifted(heap, heap).psi == 0
    assert drifted(heap, steady).is_drifted
    assert drifted(steady, heap).is_drifted
    assert drifted(numbers(*[5.0] * 101), numbers(*[math.inf] * 101)).is_drifted
    assert drifted(steady, numbers(*(place + 29 / 2 for place in range(101)))).is_drifted


def test_shares_between_quantiles() -> None:
    found = Distribution.of(numbers(*(float(place) for place in range(101))))
    assert found.quantile(0.3) == 30
    assert found.up_to(12.5) == pytest.approx(0.125)
    assert (found.up_to(-1), found.up_to(200), found.below(0)) == (0, 1, 0)
    assert found.surely_above(98.5) == pytest.approx(0.01)
    listed = ColumnProfile(
        4, 0, kind=ColumnKind.NUMERIC, top_values=(("2", 2), ("1.5", 1), ("-inf", 1))
    )
    exact = Distribution.of(listed)
    assert [exact.up_to(point) for point in (-9.0, 1.5, 1.9, 2.0)] == [0.25, 0.5, 0.5, 1]
