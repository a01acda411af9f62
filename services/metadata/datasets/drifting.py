"""Drift of a column: the population stability index and the Jensen-Shannon distance.

Both compare shares p and q of B bins, with half a value added to each bin so that
an empty one does no harm:

    PSI = Σ (q - p) ln(q / p)      JS² = ½ Σ p log₂(p / m) + ½ Σ q log₂(q / m), m = (p + q) / 2

Numbers fall into bins at the base's quantiles; few different values are bins of
their own. Of n and m values of one distribution, PSI / (1/n + 1/m) follows the
chi-squared distribution of B - 1 degrees of freedom (Yurdakul and Naranjo,
"Statistical properties of the population stability index", Journal of Risk Model
Validation 14(4), 2020). So a column drifted if its PSI is above both what is
commonly taken as harmless, 0.1, and what chance passes once in a hundred times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from services.metadata.datasets.distributions import Distribution
from services.metadata.datasets.domain import ColumnKind, ColumnProfile, Drift

HARMLESS = 0.1
BINS = 10
PER_BIN = 20
"""So many values a bin must be expected to hold, for numbers."""
PER_VALUE = 5
"""A value that is expected less often in either joins the rest."""

UNLISTED = 0.01
"""Values that occur more often than that are expected in the list of the most frequent."""

_Z_99 = 2.3263478740408408


def drift(base: ColumnProfile, other: ColumnProfile) -> Drift | str:
    """Return how far a column's values moved, or why that cannot be said."""
    obstacle = _obstacle(base, other)
    if obstacle:
        return obstacle
    bins = (_numbers if base.kind is ColumnKind.NUMERIC else _values)(base, other)
    used = [(p, q) for p, q in bins if p or q]
    if len(used) < 2:
        same = base.kind is ColumnKind.NUMERIC or (is_complete(base) and is_complete(other))
        return Drift(0.0, 0.0, HARMLESS) if same else "there are too many different values"
    return _judge(used, base.filled_count, other.filled_count)


def _obstacle(base: ColumnProfile, other: ColumnProfile) -> str:
    """Return why values cannot be held against each other; empty when they can."""
    is_numeric = base.kind is ColumnKind.NUMERIC
    obstacles = {
        "its values are of another kind": base.kind is not other.kind,
        "there are no values": not base.filled_count or not other.filled_count,
        "moments move on by themselves": base.kind is ColumnKind.TEMPORAL,
        "its profile does not say what kind of values it holds": base.kind is ColumnKind.UNKNOWN,
        "there are no quantiles": is_numeric and not (base.quantiles and other.quantiles),
    }
    return next((text for text, holds in obstacles.items() if holds), "")


def is_complete(profile: ColumnProfile) -> bool:
    """Say whether a profile lists every value."""
    return sum(count for _, count in profile.top_values) == profile.filled_count


def _numbers(base: ColumnProfile, other: ColumnProfile) -> list[tuple[float, float]]:
    """Return the shares of both between quantiles of the base."""
    before, after = Distribution.of(base), Distribution.of(other)
    smaller = min(base.filled_count, other.filled_count)
    count = max(2, min(BINS, smaller // PER_BIN))
    cuts = sorted({before.quantile(place / count) for place in range(1, count)})
    shares = []
    for found in (before, after):
        # What equals the least edge is a bin of its own if the base's values begin there.
        first = [found.below(cuts[0])] if before.below(cuts[0]) == 0 else []
        ends = [0.0, *first, *(found.up_to(cut) for cut in cuts), 1.0]
        shares.append([max(end - start, 0.0) for start, end in pairwise(ends)])
    return list(zip(*shares, strict=True))


def _values(base: ColumnProfile, other: ColumnProfile) -> list[tuple[float, float]]:
    """Return the shares of both by value; rare and unlisted values are one bin together."""
    n, m = base.filled_count, other.filled_count
    old: dict[str, float] = dict(base.top_values)
    new: dict[str, float] = dict(other.top_values)
    before = old | _unlisted(base, old, wanted={v: count / m * n for v, count in new.items()})
    after = new | _unlisted(other, new, wanted={v: count / n * m for v, count in old.items()})
    expected = min(n, m) / (n + m)
    own = [
        (count, after[value])
        for value, count in before.items()
        if (count + after[value]) * expected >= PER_VALUE
    ]
    rest = (max(n - sum(p for p, _ in own), 0), max(m - sum(q for _, q in own), 0))
    return [(p / n, q / m) for p, q in (*own, rest)]


def _unlisted(
    profile: ColumnProfile, listed: Mapping[str, float], *, wanted: Mapping[str, float]
) -> dict[str, float]:
    """Guess how often values occur that a list lacks: as wanted, as far as that can be.

    Of a list of all values those are none. Else they are rarer than what is listed, if maybe
    not by the figures of a sketch, which may be half of the truth; and at most one in a hundred.
    """
    lacking = {value: count for value, count in wanted.items() if value not in listed}
    filled = profile.filled_count
    left = filled - sum(listed.values())
    most = min([filled * UNLISTED, *(2 * count for count in listed.values())])
    found = {value: min(count, most) for value, count in lacking.items()}
    shrink = min(1.0, left / sum(found.values())) if any(found.values()) else 0.0
    return {value: count * shrink for value, count in found.items()}


def _judge(bins: Sequence[tuple[float, float]], n: int, m: int) -> Drift:
    count = len(bins)
    pairs = [
        ((p * n + 0.5) / (n + 0.5 * count), (q * m + 0.5) / (m + 0.5 * count)) for p, q in bins
    ]
    psi = sum((q - p) * math.log(q / p) for p, q in pairs)
    divergence = sum(
        (p * math.log2(2 * p / (p + q)) + q * math.log2(2 * q / (p + q))) / 2 for p, q in pairs
    )
    by_chance = (1 / n + 1 / m) * _chi_squared_99(count - 1)
    return Drift(psi, math.sqrt(max(divergence, 0.0)), max(HARMLESS, by_chance))


def _chi_squared_99(freedom: int) -> float:
    """Return the 99th percentile, by Wilson and Hilferty's approximation (PNAS 17, 1931)."""
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + _Z_99 * math.sqrt(part)) ** 3)
