"""How often each value occurs: exactly while there are few, by sketches after that."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from datasketches import (
    frequent_items_error_type,
    frequent_strings_sketch,
    hll_sketch,
    hll_union,
)

EXACT = 1_000
TOP = 100
VALUE = 255
HLL_BITS = 12
FREQUENT_BITS = 10


class Distinct:
    """About how many different values there are, in an HLL sketch."""

    def __init__(self, sketch: hll_sketch | None = None) -> None:
        self._sketch = sketch or hll_sketch(HLL_BITS)

    def add(self, values: Iterable[float] | Iterable[str]) -> None:
        """Take values in; the same value again changes nothing."""
        deque(map(self._sketch.update, values), maxlen=0)

    def merge(self, other: Distinct) -> None:
        """Take in all that another saw."""
        union = hll_union(HLL_BITS)
        union.update(self._sketch)
        union.update(other._sketch)
        self._sketch = union.get_result()

    def estimate(self) -> int:
        """Return how many there are."""
        return int(self._sketch.get_estimate() + 0.5)

    def serialise(self) -> bytes:
        """Return the sketch."""
        return bytes(self._sketch.serialize_compact())

    @classmethod
    def deserialise(cls, data: bytes) -> Distinct:
        """Read a sketch that `serialise` wrote."""
        return cls(hll_sketch.deserialize(data))


class Frequencies:
    """How often each text occurs."""

    def __init__(self) -> None:
        self.exact: Counter[str] | None = Counter()
        self._distinct = Distinct()
        self._frequent = frequent_strings_sketch(FREQUENT_BITS)

    def add(self, counts: Mapping[str, int]) -> None:
        """Take in how often values occur in some more data."""
        if self.exact is None:
            self._sketch(counts)
            return
        self.exact.update(counts)
        if len(self.exact) > EXACT:
            self._sketch(self.exact)
            self.exact = None

    def merge(self, other: Frequencies) -> None:
        """Take in all that another saw."""
        if other.exact is not None:
            self.add(other.exact)
            return
        if self.exact is not None:
            self._sketch(self.exact)
            self.exact = None
        self._distinct.merge(other._distinct)
        self._frequent.merge(other._frequent)

    def distinct_count(self) -> int:
        """Return how many different values there are."""
        return self._distinct.estimate() if self.exact is None else len(self.exact)

    def top(self) -> list[tuple[str, int]]:
        """Return the most frequent values, most frequent first, and how often each occurs."""
        if self.exact is not None:
            return sorted(self.exact.items(), key=_by_count)[:TOP]
        items = self._frequent.get_frequent_items(frequent_items_error_type.NO_FALSE_POSITIVES)
        # An item is (value, estimate, least, most): the least is never too much.
        return sorted(((item[0], int(item[2])) for item in items), key=_by_count)[:TOP]

    def sketches(self) -> tuple[bytes, bytes]:
        """Return the sketches of different and of frequent values; the listed ones need none."""
        if self.exact is not None and len(self.exact) <= TOP:
            return b"", b""
        if self.exact is not None:
            self._sketch(self.exact)
            self.exact = None
        return self._distinct.serialise(), bytes(self._frequent.serialize())

    @classmethod
    def restored(cls, counts: Mapping[str, int], distinct: bytes, frequent: bytes) -> Frequencies:
        """Make it from what it came to: all values, or sketches of them."""
        found = cls()
        if not distinct:
            found.add(counts)
            return found
        found.exact = None
        found._distinct = Distinct.deserialise(distinct)
        found._frequent = frequent_strings_sketch.deserialize(frequent)
        return found

    def _sketch(self, counts: Mapping[str, int]) -> None:
        self._distinct.add(counts)
        for value, count in counts.items():
            self._frequent.update(value, count)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
