"""Comparing: finding what the names stand for, and putting it side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.common.errors import not_found
from services.common.sql.database import Database, Transaction
from services.metadata.comparisons import aligning, store
from services.metadata.comparisons.domain import Comparison, DatasetRow
from services.metadata.comparisons.sources import Sources
from services.metadata.comparisons.store import SubjectName
from services.metadata.datasets.differences import compare_versions
from services.metadata.models.store import goals_of


class Comparing:
    """Compares what was trained."""

    def __init__(self, *, database: Database, sources: Sources) -> None:
        self._database = database
        self._sources = sources

    async def compare(
        self, names: Sequence[SubjectName], *, with_code: bool, credential: str, seconds: float
    ) -> Comparison:
        """Put runs, versions and builds side by side; they are held against the first.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """
        found = await self._database.read(lambda tx: _read(tx, names))
        if not with_code:
            return found
        code = await self._sources.differences(
            found.subjects, credential=credential, seconds=seconds
        )
        return replace(found, code=code)


def _read(tx: Transaction, names: Sequence[SubjectName]) -> Comparison:
    found = store.find_subjects(tx.connection, set(names))
    for name in names:
        if name not in found:
            raise not_found(name)
    subjects = [found[name] for name in names]
    goals = goals_of(tx.connection, [subject.model for subject in subjects])
    return Comparison(
        subjects=subjects,
        params=aligning.params(subjects),
        metrics=aligning.metrics(subjects, goals),
        environment=aligning.environment(subjects),
        packages=aligning.packages(subjects),
        datasets=[_with_differences(tx, row) for row in aligning.datasets(subjects)],
    )


def _with_differences(tx: Transaction, row: DatasetRow) -> DatasetRow:
    """Say how the data differs that both used; a version that is gone by now says nothing."""
    pairs = aligning.dataset_pairs(row)
    found = store.find_dataset_versions(tx.connection, {name for pair in pairs for name in pair})
    both = ((found[base], found[other]) for base, other in pairs)
    differences = (compare_versions(a, b) for a, b in both if a is not None and b is not None)
    return replace(row, differences=tuple(differences))
