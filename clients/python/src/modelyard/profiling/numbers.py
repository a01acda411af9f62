"""What numbers come to: moments, extremes, quantiles, different values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from datasketches import kll_doubles_sketch
from numpy.typing import NDArray

from modelyard.profiling.frequencies import TOP, Distinct

KLL_K = 500
QUANTILES = [place / 100 for place in range(101)]
BINS = 20
_PEEK = 4_096

Doubles = NDArray[np.float64]


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations, merged as Chan, Golub and LeVeque (1979) do."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, other: Moments) -> None:
        """Take in what another has seen."""
        total = self.count + other.count
        if not total:
            return
        difference = other.mean - self.mean
        self.mean += difference * other.count / total
        self.squares += other.squares + difference**2 * self.count * other.count / total
        self.count = total

    @classmethod
    def of(cls, values: Doubles) -> Moments:
        """Sum numbers up, of which there is at least one."""
        with np.errstate(all="ignore"):  # infinities have no mean; it is left out in the end
            mean = float(values.mean())
            return cls(len(values), mean, float(((values - mean) ** 2).sum()))


@dataclass(slots=True)
class Numbers:
    """Numbers that are no NaN, summed up chunk by chunk."""

    moments: Moments = field(default_factory=Moments)
    least: float = math.inf
    greatest: float = -math.inf
    quantiles: kll_doubles_sketch = field(default_factory=lambda: kll_doubles_sketch(KLL_K))
    exact: Counter[float] | None = field(default_factory=Counter)
    """How often each occurs, while there are at most 100 different ones."""
    distinct: Distinct = field(default_factory=Distinct)

    def add(self, values: Doubles) -> None:
        """Take numbers in."""
        if not len(values):
            return
        self.moments.merge(Moments.of(values))
        self.least = min(self.least, float(values.min()))
        self.greatest = max(self.greatest, float(values.max()))
        self.quantiles.update(values)
        self._count(values)

    def merge(self, other: Numbers) -> None:
        """Take in all that another saw."""
        self.moments.merge(other.moments)
        self.least = min(self.least, other.least)
        self.greatest = max(self.greatest, other.greatest)
        self.quantiles.merge(other.quantiles)
        if self.exact is not None and other.exact is not None:
            self.exact.update(other.exact)
            self._look()
            return
        self._give_up()
        self.distinct.merge(other.sketched())

    def sketched(self) -> Distinct:
        """Return the different values as a sketch, whatever they are kept in."""
        found = Distinct()
        if self.exact is None:
            found.merge(self.distinct)
        else:
            found.add(self.exact)
        return found

    def points(self) -> list[float]:
        """Return the 101 quantiles, the first and the last of them exact; none of no numbers."""
        if not self.moments.count:
            return []
        if self.exact is not None:
            return _exact_quantiles(self.exact)
        inner = self.quantiles.get_quantiles(QUANTILES[1:-1])
        return [self.least, *(min(max(q, self.least), self.greatest) for q in inner), self.greatest]

    def histogram(self) -> tuple[Sequence[float], Sequence[int]]:
        """Return edges, equally far from each other, and how many numbers lie between them."""
        width = self.greatest - self.least
        if not self.moments.count or not math.isfinite(width) or width <= 0:
            return (), ()
        edges = np.linspace(self.least, self.greatest, BINS + 1)
        if len(np.unique(edges)) != len(edges):
            return (), ()
        if self.exact is not None:
            values = np.fromiter(self.exact.keys(), dtype=float)
            counts = np.fromiter(self.exact.values(), dtype=np.int64)
            found, _ = np.histogram(values, bins=edges, weights=counts)
            return edges.tolist(), [int(count) for count in found]
        ranks = [0.0, *(self.quantiles.get_rank(edge) for edge in edges[1:-1].tolist()), 1.0]
        upto = [round(rank * self.moments.count) for rank in ranks]
        return edges.tolist(), [max(b - a, 0) for a, b in pairwise(upto)]

    def _count(self, values: Doubles) -> None:
        if self.exact is not None and len(np.unique(values[:_PEEK])) <= TOP:
            found, counts = np.unique(values, return_counts=True)
            self.exact.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            self._look()
            return
        self._give_up()
        self.distinct.add(values.tolist())

    def _look(self) -> None:
        if self.exact is not None and len(self.exact) > TOP:
            self._give_up()

    def _give_up(self) -> None:
        """From here on the different values are only sketched."""
        if self.exact is not None:
            self.distinct.add(self.exact)
            self.exact = None


def _exact_quantiles(counts: Counter[float]) -> list[float]:
    values = sorted(counts)
    upto = np.cumsum([counts[value] for value in values])
    places = np.searchsorted(upto, np.array(QUANTILES) * upto[-1], side="left")
    return [values[min(int(place), len(values) - 1)] for place in places]
