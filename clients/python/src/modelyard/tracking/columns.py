"""One column of data: its type, its digest and its profile, with numpy or without."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_CODES: dict[type, tuple[str, str]] = {
    bool: ("B", "bool"),
    int: ("q", "int64"),
    float: ("d", "float64"),
}


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What a column is like; `profile` has the fields of a ColumnProfile, for JSON."""

    type: str
    length: int
    digest: str
    profile: dict[str, Any]


def describe_column(values: Any) -> ColumnFacts:
    """Return what a column is like: a series, an array, or any sequence."""
    if callable(getattr(values, "to_numpy", None)):
        values = values.to_numpy()
    if not hasattr(values, "dtype"):
        values = _as_array(list(values))
    if isinstance(values, list):
        return _describe_objects(values)
    return _describe_array(values)


class Moments:
    """Least, greatest, mean and deviation of numbers that come one by one (Welford's way)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = 0.0
        self._squares = 0.0
        self._min = math.inf
        self._max = -math.inf

    def add(self, number: float) -> None:
        """Take a number in."""
        self.count += 1
        before = number - self._mean
        self._mean += before / self.count
        self._squares += before * (number - self._mean)
        self._min, self._max = min(self._min, number), max(self._max, number)

    def profile(self, length: int) -> dict[str, Any]:
        """Return the profile of a column of so many values, of which these are not null."""
        found = {"count": length, "null_count": length - self.count}
        if not self.count:
            return found
        deviation = math.sqrt(self._squares / self.count) if self._squares >= 0 else math.nan
        return found | finite(min=self._min, max=self._max, mean=self._mean, std=deviation)


def finite(**numbers: float) -> dict[str, float]:
    """Return those that are numbers in JSON's sense."""
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def _as_array(values: list[Any]) -> Any:
    """Return a list as an array of numpy, or as it is where there is none."""
    try:
        import numpy as np  # noqa: PLC0415 - tracking works without numpy
    except ModuleNotFoundError:
        return values
    found = np.asarray(values) if _has_one_kind(values) else None
    if found is None or found.ndim != 1 or found.dtype.kind not in "iufb":
        return values
    return found


def _has_one_kind(values: list[Any]) -> bool:
    return len({isinstance(value, bool) for value in values}) == 1


def _describe_array(values: Any) -> ColumnFacts:
    """Describe an array of numpy, of any number of dimensions."""
    kind = values.dtype.kind
    length = int(values.shape[0])
    shape = "".join(f"[{size}]" for size in values.shape[1:])
    if kind in "mM":
        return _describe_moments(values, length, shape)
    if kind not in "iufb":
        return _describe_objects(values.reshape(-1).tolist(), length=length, shape=shape)
    name = values.dtype.name
    plain = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
    digest = hashlib.sha256(plain.tobytes()).hexdigest()
    return ColumnFacts(f"{name}{shape}", length, digest, _profile_array(values))


def _profile_array(values: Any) -> dict[str, Any]:
    present = values if values.dtype.kind != "f" else values[values == values]  # noqa: PLR0124 - NaN is not equal to itself
    found = {"count": int(values.size), "null_count": int(values.size - present.size)}
    if not present.size:
        return found
    import numpy as np  # noqa: PLC0415 - the values are its arrays

    numbers = present.astype("float64", copy=False)
    with np.errstate(all="ignore"):  # infinities have no mean; it is left out
        mean, deviation = numbers.mean(), numbers.std()
    return found | finite(min=numbers.min(), max=numbers.max(), mean=mean, std=deviation)


def _describe_moments(values: Any, length: int, shape: str) -> ColumnFacts:
    kind = "datetime64[ns]" if values.dtype.kind == "M" else "timedelta64[ns]"
    numbers = values.astype(kind).astype("<i8")
    nulls = int((numbers == -(2**63)).sum())
    digest = hashlib.sha256(numbers.tobytes()).hexdigest()
    profile = {"count": int(numbers.size), "null_count": nulls}
    return ColumnFacts(f"{kind}{shape}", length, digest, profile)


def _describe_objects(
    values: list[Any], *, length: int | None = None, shape: str = ""
) -> ColumnFacts:
    """Describe values of Python, one by one unless all are numbers of one type."""
    size = len(values) if length is None else length
    kinds = {type(value) for value in values}
    code = _CODES.get(next(iter(kinds))) if len(kinds) == 1 else None
    if code is not None:
        return _describe_numbers(values, *code, length=size, shape=shape)
    digest = hashlib.sha256()
    nulls = 0
    for value in values:
        if _is_null(value):
            nulls += 1
            digest.update(b"-:")
        else:
            text = (value if isinstance(value, str) else str(value)).encode("utf-8", "replace")
            digest.update(b"%d:" % len(text))
            digest.update(text)
    name = "string" if all(isinstance(v, str) or _is_null(v) for v in values) else "object"
    profile = {"count": len(values), "null_count": nulls}
    return ColumnFacts(f"{name}{shape}", size, digest.hexdigest(), profile)


def _describe_numbers(
    values: list[Any], code: str, name: str, *, length: int, shape: str
) -> ColumnFacts:
    try:
        packed = array(code, values)
    except OverflowError:  # integers of more than 64 bits
        return _describe_objects([str(value) for value in values], length=length, shape=shape)
    digest = hashlib.sha256(packed.tobytes()).hexdigest()
    return ColumnFacts(f"{name}{shape}", length, digest, _moments(values).profile(len(values)))


def _moments(values: Iterable[Any]) -> Moments:
    moments = Moments()
    for value in values:
        if not _is_null(value):
            moments.add(float(value))
    return moments


def _is_null(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ in {"NAType", "NaTType"}
