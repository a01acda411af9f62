"""The history of metrics: all points page by page, or as many as a chart can show."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

from services.common.errors import not_found
from services.common.listing.pagination import decode_token, encode_token
from services.common.names import RunName
from services.common.sql.database import Database, Transaction
from services.metadata.listing import Listing
from services.metadata.runs import columns, points_store, store
from services.metadata.runs.domain import MetricColumn, MetricSample, Sampling
from services.metadata.runs.points_store import Extent

Place = tuple[int, int]
"""Where a point stands in its series: its step, then its place in order of logging."""


class History:
    """Reads metric points."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def list_points(
        self, name: RunName, key: str, listing: Listing
    ) -> tuple[MetricColumn, str]:
        """Return a page of one metric's points and the next page's token.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PAGE_TOKEN.
        """
        scope = f"points\n{name}\n{key}"
        after = decode_token(listing.token, scope, tuple[int, int])

        def read(tx: Transaction) -> tuple[MetricColumn, str]:
            run_pk, series = _series(tx, name, [key])
            page = columns.empty(key)
            for _, pk in series:
                found = points_store.extents(tx.connection, run_pk, [pk])[pk]
                last = _fill(page, _sorted(tx, pk, found, after), listing.size, after)
                return page, "" if last is None else encode_token(scope, last)
            return page, ""

        return await self._database.read(read)

    async def sample(self, name: RunName, wanted: Sampling) -> list[MetricSample]:
        """Return the points of a run's metrics that a chart needs, by key.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """

        def read(tx: Transaction) -> list[MetricSample]:
            run_pk, series = _series(tx, name, wanted.keys)
            some = list(islice(series, wanted.limit))
            found = points_store.extents(tx.connection, run_pk, [pk for _, pk in some])
            whole = ((key, _between(tx, pk, found[pk], wanted)) for key, pk in some)
            return [_sample(key, points, wanted) for key, points in whole if points.steps]

        return await self._database.read(read)


def _series(
    tx: Transaction, name: RunName, keys: Sequence[str]
) -> tuple[int, list[tuple[str, int]]]:
    """Return a run's row, and its series of some keys (none: of all) by key."""
    run_pk = store.find_run_pk(tx.connection, name)
    if run_pk is None:
        raise not_found(name)
    return run_pk, sorted(store.series_of(tx.connection, run_pk, keys))


def _sorted(
    tx: Transaction, series_pk: int, found: Sequence[Extent], after: Place | None
) -> Iterator[tuple[MetricColumn, Sequence[int]]]:
    """Yield points by step with their places in order of logging, pieces before `after` left out.

    Only where pieces overlap are they read as a whole before the first is yielded.
    """
    if all(one.max_step <= other.min_step for one, other in pairwise(found)):
        for extent in found:
            if after is None or extent.max_step >= after[0]:
                points = points_store.read(tx.connection, series_pk, extent)
                yield _in_order(points, range(extent.ordinal, extent.ordinal + extent.count))
        return
    pieces = [points_store.read(tx.connection, series_pk, extent) for extent in found]
    ordinals = array("q")
    for extent in found:
        ordinals.extend(range(extent.ordinal, extent.ordinal + extent.count))
    yield _in_order(columns.join("", pieces), ordinals)


def _in_order(points: MetricColumn, ordinals: Sequence[int]) -> tuple[MetricColumn, Sequence[int]]:
    places = columns.by_step(points.steps)
    if isinstance(places, range):
        return points, ordinals
    return columns.pick(points, places), [ordinals[place] for place in places]


def _fill(
    page: MetricColumn,
    pieces: Iterable[tuple[MetricColumn, Sequence[int]]],
    size: int,
    after: Place | None,
) -> Place | None:
    """Take points into a page; return the last one's place when there are more."""
    last: Place | None = None
    for points, ordinals in pieces:
        start = 0 if after is None else _first_after(points, ordinals, after)
        end = min(len(points.steps), start + size - len(page.steps))
        page.steps.extend(points.steps[start:end])
        page.times_us.extend(points.times_us[start:end])
        page.values.extend(points.values[start:end])
        if end > start:
            last = (points.steps[end - 1], ordinals[end - 1])
        if end < len(points.steps):
            return last
    return None


def _first_after(points: MetricColumn, ordinals: Sequence[int], after: Place) -> int:
    low, high = 0, len(points.steps)
    while low < high:
        middle = (low + high) // 2
        if (points.steps[middle], ordinals[middle]) > after:
            high = middle
        else:
            low = middle + 1
    return low


def _between(
    tx: Transaction, series_pk: int, found: Sequence[Extent], wanted: Sampling
) -> MetricColumn:
    """Return the points whose steps are wanted, by step."""
    start, end = wanted.start, wanted.end
    some = [
        extent
        for extent in found
        if (start is None or extent.max_step >= start) and (end is None or extent.min_step < end)
    ]
    pieces = [points_store.read(tx.connection, series_pk, extent) for extent in some]
    points, _ = _in_order(whole := columns.join("", pieces), range(len(whole.steps)))
    first = 0 if start is None else bisect_left(points.steps, start)
    last = len(points.steps) if end is None else bisect_left(points.steps, end)
    return columns.part(points, first, last)


def _sample(key: str, points: MetricColumn, wanted: Sampling) -> MetricSample:
    places = columns.choose(points.values, wanted.points)
    chosen = points if isinstance(places, range) else columns.pick(points, places)
    named = MetricColumn(key, chosen.steps, chosen.times_us, chosen.values)
    return MetricSample(named, len(points.values))
