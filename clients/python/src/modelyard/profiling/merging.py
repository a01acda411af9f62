"""Profiles of parts put together, as if the whole had been summed up at once."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence

from datasketches import kll_doubles_sketch

from modelyard.metadata.v1 import dataset_pb2
from modelyard.profiling.columns import NUMERIC, TEMPORAL, UNKNOWN, ColumnProfiler
from modelyard.profiling.frequencies import Distinct, Frequencies
from modelyard.profiling.numbers import Moments, Numbers
from modelyard.profiling.profiles import DatasetProfile, trimmed


def merge(profiles: Sequence[DatasetProfile | dataset_pb2.DatasetVersion]) -> DatasetProfile:
    """Merge profiles of parts with the same columns, fresh or as the server keeps them.

    The digest of the whole is the SHA-256 of the JSON list of the parts' digests, in order.

    Raises:
        ValueError: There are none, their columns differ, or a column has no sketches.
    """
    if not profiles:
        raise ValueError("there are no profiles to merge")
    whole = [_restored(column) for column in profiles[0].schema]
    for part in profiles[1:]:
        others = [_restored(column) for column in part.schema]
        if [(c.name, c.type) for c in others] != [(c.name, c.type) for c in whole]:
            raise ValueError("the profiles are of different columns")
        for own, other in zip(whole, others, strict=True):
            own.merge(other)
    digests = json.dumps([part.digest for part in profiles], separators=(",", ":"))
    counts = [_row_count(part) for part in profiles]
    known = [count for count in counts if count is not None]
    return DatasetProfile(
        schema=trimmed(column.column() for column in whole),
        row_count=sum(known) if len(known) == len(counts) else None,
        digest=hashlib.sha256(digests.encode()).hexdigest(),
    )


def _row_count(part: DatasetProfile | dataset_pb2.DatasetVersion) -> int | None:
    if isinstance(part, DatasetProfile) or part.HasField("row_count"):
        return part.row_count
    return None


def _restored(column: dataset_pb2.Column) -> ColumnProfiler:
    profile = column.profile
    found = ColumnProfiler(
        column.name,
        column.type,
        profile.kind,
        count=profile.count,
        null_count=profile.null_count,
        nan_count=profile.nan_count,
    )
    if profile.kind in (NUMERIC, TEMPORAL):
        found.numbers = _numbers(column)
    elif profile.kind != UNKNOWN:
        found.texts = _texts(column)
    return found


def _numbers(column: dataset_pb2.Column) -> Numbers:
    profile = column.profile
    filled = profile.count - profile.null_count - profile.nan_count
    if not filled:
        return Numbers()
    if not profile.quantile_sketch:
        raise ValueError(f"column {column.name!r} has no sketch: it cannot be merged")
    is_exact = bool(profile.top_values)
    mean = profile.mean if profile.HasField("mean") else math.nan
    std = profile.std if profile.HasField("std") else math.nan
    return Numbers(
        moments=Moments(filled, mean, std**2 * filled),
        least=profile.min,
        greatest=profile.max,
        quantiles=kll_doubles_sketch.deserialize(profile.quantile_sketch),
        exact=(
            Counter({float(top.value): top.count for top in profile.top_values})
            if is_exact
            else None
        ),
        distinct=Distinct() if is_exact else Distinct.deserialise(profile.distinct_sketch),
    )


def _texts(column: dataset_pb2.Column) -> Frequencies:
    profile = column.profile
    counts = {top.value: top.count for top in profile.top_values}
    if not profile.distinct_sketch and profile.distinct_count > len(counts):
        raise ValueError(f"column {column.name!r} has no sketch: it cannot be merged")
    return Frequencies.restored(counts, profile.distinct_sketch, profile.frequency_sketch)
