"""The distribution of a column's numbers, as its profile tells it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from services.metadata.datasets.domain import ColumnProfile


@dataclass(frozen=True, slots=True)
class Distribution:
    """Shares of numbers up to given points.

    Exact where the profile lists every different value; else between neighbouring quantiles
    as if they were spread evenly there.
    """

    points: Sequence[float]
    """Rising."""
    shares: Sequence[float]
    """Of the numbers up to each point."""
    is_exact: bool

    @classmethod
    def of(cls, profile: ColumnProfile) -> Self:
        """Read a numeric column's profile; its quantiles or its values must be there."""
        exact = _values(profile)
        if exact is not None:
            points = sorted(exact)
            counts = accumulate(exact[point] for point in points)
            return cls(points, [count / profile.filled_count for count in counts], is_exact=True)
        count = len(profile.quantiles) - 1
        return cls(profile.quantiles, [place / count for place in range(count + 1)], is_exact=False)

    def quantile(self, share: float) -> float:
        """Return the least point up to which this share lies."""
        return self.points[min(bisect_left(self.shares, share), len(self.points) - 1)]

    def up_to(self, point: float) -> float:
        """Return the share of numbers that are at most this."""
        place = bisect_right(self.points, point)
        if place == 0:
            return 0.0
        if place == len(self.points):
            return 1.0
        return self._between(place, point) if not self.is_exact else self.shares[place - 1]

    def below(self, point: float) -> float:
        """Return the share of numbers that are less than this."""
        place = bisect_left(self.points, point)
        if place == 0:
            return 0.0
        if place == len(self.points):
            return 1.0
        return self._between(place, point) if not self.is_exact else self.shares[place - 1]

    def surely_below(self, point: float) -> float:
        """Return a share that is less than this, taking no evenness for granted."""
        place = bisect_left(self.points, point)
        if place == 0:
            return 0.0
        return self.shares[place - 1]

    def surely_above(self, point: float) -> float:
        """Return a share that is more than this, taking no evenness for granted."""
        place = bisect_right(self.points, point)
        if place == len(self.points):
            return 0.0
        if self.is_exact:
            return 1.0 - (self.shares[place - 1] if place else 0.0)
        return 1.0 - self.shares[place]

    def _between(self, place: int, point: float) -> float:
        low, high = self.points[place - 1], self.points[place]
        before, after = self.shares[place - 1], self.shares[place]
        if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
            return before
        return before + (after - before) * (point - low) / (high - low)


def _values(profile: ColumnProfile) -> dict[float, int] | None:
    """Return how often each number occurs, if the profile lists them all."""
    if not profile.top_values:
        return None
    if sum(count for _, count in profile.top_values) != profile.filled_count:
        return None
    try:
        found = {float(value): count for value, count in profile.top_values}
    except ValueError:
        return None
    return found if not any(math.isnan(value) for value in found) else None
