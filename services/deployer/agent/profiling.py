"""The profile of a column of sampled rows, exact: there are few enough to sort.

The fields are those that `modelyard.profiling` fills with sketches of data of any size; quantiles
and frequent values are all that drift is computed from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from modelyard.metadata.v1 import dataset_pb2

TOP = 100
_POINTS = 100
_KINDS = {
    "bool": dataset_pb2.COLUMN_KIND_BOOLEAN,
    "str": dataset_pb2.COLUMN_KIND_CATEGORICAL,
}


def profile(name: str, type_: str, values: Sequence[Any], rows: int) -> dataset_pb2.Column:
    """Return a column of so many rows; None and what is missing are nulls."""
    filled = [value for value in values if value is not None]
    kind = _KINDS.get(type_, dataset_pb2.COLUMN_KIND_NUMERIC)
    found = dataset_pb2.ColumnProfile(count=rows, null_count=rows - len(filled), kind=kind)
    if kind == dataset_pb2.COLUMN_KIND_NUMERIC:
        _put_numbers(found, [float(value) for value in filled])
    else:
        _put_texts(found, Counter(_text(value) for value in filled))
    return dataset_pb2.Column(name=name, type=type_, profile=found)


def _put_numbers(profile: dataset_pb2.ColumnProfile, numbers: list[float]) -> None:
    if not numbers:
        return
    numbers.sort()
    count = len(numbers)
    profile.min, profile.max = numbers[0], numbers[-1]
    mean = math.fsum(numbers) / count
    deviation = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / count)
    if math.isfinite(mean) and math.isfinite(deviation):
        profile.mean, profile.std = mean, deviation
    places = (math.ceil(point * count / _POINTS) - 1 for point in range(_POINTS + 1))
    profile.quantiles.extend(numbers[max(0, place)] for place in places)
    counts = Counter(numbers)
    profile.distinct_count = len(counts)
    if len(counts) <= TOP:  # of more the most frequent ones say nothing
        _put_counts(profile, {repr(number): times for number, times in counts.items()})


def _put_texts(profile: dataset_pb2.ColumnProfile, counts: Counter[str]) -> None:
    profile.distinct_count = len(counts)
    _put_counts(profile, counts)


def _put_counts(profile: dataset_pb2.ColumnProfile, counts: dict[str, int]) -> None:
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for value, count in frequent[:TOP]:
        profile.top_values.add(value=value, count=count)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).replace("\0", "�")
