"""Between messages and domain: what is in a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from google.protobuf.message import Message
from modelyard.metadata.v1 import dataset_pb2

from services.common.errors import invalid_field
from services.metadata import limits
from services.metadata.datasets.domain import ColumnKind, ColumnProfile, Histogram

QUANTILES = 101
TOP_VALUES = 100
VALUE = 255
BINS = 1_000
SKETCH = 65_536

_EXTREMES = ("min", "max")
_NUMBERS = (*_EXTREMES, "mean", "std")
_SKETCHES = ("quantile_sketch", "distinct_sketch", "frequency_sketch")
_KINDS = {
    kind: dataset_pb2.ColumnKind.Value(
        f"COLUMN_KIND_{'UNSPECIFIED' if kind is ColumnKind.UNKNOWN else kind}"
    )
    for kind in ColumnKind
}
_KINDS_FROM = {number: kind for kind, number in _KINDS.items()}


def read(message: dataset_pb2.ColumnProfile, field: str) -> ColumnProfile:
    """Return a column's profile, or refuse one that cannot be."""
    if min(message.null_count, message.nan_count) < 0 or (
        message.null_count + message.nan_count > message.count
    ):
        raise invalid_field(field, "must not hold more nulls and NaNs than values")
    if message.kind not in _KINDS_FROM:
        raise invalid_field(f"{field}.kind", "is not a kind of values")
    if message.std < 0:
        raise invalid_field(f"{field}.std", "must not be negative")
    if message.HasField("min") and message.HasField("max") and message.min > message.max:
        raise invalid_field(f"{field}.min", "must not be more than max")
    for sketch in _SKETCHES:
        if len(getattr(message, sketch)) > SKETCH:
            raise invalid_field(f"{field}.{sketch}", f"must not be more than {SKETCH} bytes")
    filled = message.count - message.null_count - message.nan_count
    return ColumnProfile(
        count=message.count,
        null_count=message.null_count,
        min=_number(message, "min", field),
        max=_number(message, "max", field),
        mean=_number(message, "mean", field),
        std=_number(message, "std", field),
        kind=_KINDS_FROM[message.kind],
        nan_count=message.nan_count,
        quantiles=_quantiles(message.quantiles, f"{field}.quantiles"),
        distinct_count=_distinct(message, f"{field}.distinct_count"),
        top_values=_top_values(message, filled, f"{field}.top_values"),
        histogram=_histogram_from(message, filled, f"{field}.histogram"),
        quantile_sketch=message.quantile_sketch,
        distinct_sketch=message.distinct_sketch,
        frequency_sketch=message.frequency_sketch,
    )


def profile(found: ColumnProfile) -> dataset_pb2.ColumnProfile:
    """Return a profile's message."""
    histogram = found.histogram
    return dataset_pb2.ColumnProfile(
        count=found.count,
        null_count=found.null_count,
        **{name: getattr(found, name) for name in _NUMBERS},
        kind=_KINDS[found.kind],
        nan_count=found.nan_count,
        quantiles=found.quantiles,
        distinct_count=found.distinct_count,
        top_values=[dataset_pb2.ValueCount(value=v, count=n) for v, n in found.top_values],
        histogram=(
            None
            if histogram is None
            else dataset_pb2.Histogram(edges=histogram.edges, counts=histogram.counts)
        ),
        **{name: getattr(found, name) for name in _SKETCHES},
    )


def _number(message: Message, name: str, field: str) -> float | None:
    if not message.HasField(name):
        return None
    number: float = getattr(message, name)
    # Numbers among which are both infinities have a mean that is none.
    if math.isnan(number) and name in _EXTREMES:
        raise invalid_field(f"{field}.{name}", "must not be NaN; leave it unset")
    return number


def _quantiles(found: Sequence[float], field: str) -> tuple[float, ...]:
    if found and len(found) != QUANTILES:
        raise invalid_field(field, f"must be {QUANTILES} or none")
    _check_rising(found, field)
    return tuple(found)


def _distinct(message: dataset_pb2.ColumnProfile, field: str) -> int | None:
    if not message.HasField("distinct_count"):
        return None
    if message.distinct_count < 0:
        raise invalid_field(field, "must not be negative")
    return message.distinct_count


def _top_values(
    message: dataset_pb2.ColumnProfile, filled: int, field: str
) -> tuple[tuple[str, int], ...]:
    if len(message.top_values) > TOP_VALUES:
        raise invalid_field(field, f"must not be more than {TOP_VALUES}")
    found = tuple(
        (limits.source(one.value, f"{field}.value", VALUE), one.count) for one in message.top_values
    )
    if any(not 0 < count <= filled for _, count in found):
        raise invalid_field(f"{field}.count", "must be at least 1, at most all that are filled")
    if sum(count for _, count in found) > filled:
        raise invalid_field(f"{field}.count", "must not be more in all than are filled")
    if len(dict(found)) != len(found):
        raise invalid_field(f"{field}.value", "must not occur twice")
    return found


def _histogram_from(
    message: dataset_pb2.ColumnProfile, filled: int, field: str
) -> Histogram | None:
    if not message.HasField("histogram"):
        return None
    edges, counts = message.histogram.edges, message.histogram.counts
    if not 0 < len(counts) <= BINS or len(edges) != len(counts) + 1:
        raise invalid_field(field, f"must have 1 to {BINS} counts and one edge more")
    if min(counts) < 0 or sum(counts) > filled:
        raise invalid_field(f"{field}.counts", "must not be negative, nor more than are filled")
    _check_rising(edges, f"{field}.edges")
    return Histogram(tuple(edges), tuple(counts))


def _check_rising(numbers: Sequence[float], field: str) -> None:
    if any(math.isnan(number) for number in numbers):
        raise invalid_field(field, "must not hold NaN")
    if any(later < earlier for earlier, later in pairwise(numbers)):
        raise invalid_field(field, "must not fall")
