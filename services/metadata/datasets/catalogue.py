"""The catalogue of datasets: registering by digest, finding, listing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.common.errors import invalid_field, not_found
from services.common.names import DatasetName, DatasetVersionName, ProjectName
from services.common.rpc.peers import remaining
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.datasets import store
from services.metadata.datasets.differences import compare_versions
from services.metadata.datasets.domain import (
    Dataset,
    DatasetDifference,
    DatasetVersion,
    DatasetVersionDraft,
)
from services.metadata.listing import Listing, Page
from services.metadata.models.artifacts import Holds


class Catalogue:
    """Keeps datasets."""

    def __init__(self, *, database: Database, holds: Holds, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._holds = holds
        self._clock = clock

    async def create_version(
        self,
        parent: DatasetName,
        draft: DatasetVersionDraft,
        *,
        creator: str,
        credential: str,
        key: Key | None,
    ) -> DatasetVersion:
        """Register a dataset version, or return the one that has this digest.

        Its bytes, if it names any, are held for as long as there is the dataset.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND when there is no such project; BYTES_MISSING.
        """
        now = self._clock()
        if draft.artifact:
            await self._holds.hold(
                draft.artifact, str(parent), credential=credential, seconds=remaining()
            )

        def create(tx: Transaction) -> DatasetVersion:
            pk = store.lock_dataset(tx.connection, parent, now)
            found = store.find_by_digest(tx.connection, pk, draft.digest)
            if found is not None:
                return found
            store.insert_version(tx.connection, pk, draft, creator=creator, now=now)
            made = store.find_by_digest(tx.connection, pk, draft.digest)
            assert made is not None  # noqa: S101 - inserted a line above
            change = Change(str(made.name), actor=creator)
            publish(tx, parent.project, ChangeKind.DATASET_VERSION_CREATED, change)
            return made

        return await self._database.write(
            lambda tx: once(tx, key, DatasetVersion, lambda: create(tx))
        )

    async def get_version(self, name: DatasetVersionName) -> DatasetVersion:
        """Return a dataset version."""
        return await self._database.read(lambda tx: _version(tx, name))

    async def compare(
        self, parent: ProjectName, base: DatasetVersionName, other: DatasetVersionName
    ) -> DatasetDifference:
        """Say how one version differs from another of the same project.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_FIELD.
        """
        for field, name in (("base", base), ("other", other)):
            if name.project != parent.project:
                raise invalid_field(field, f"must be of {parent}")
        # In the reader's thread: a thousand columns take a while.
        return await self._database.read(
            lambda tx: compare_versions(_version(tx, base), _version(tx, other))
        )

    async def list_datasets(self, parent: ProjectName, listing: Listing) -> Page[Dataset]:
        """Return a page of a project's datasets."""
        return await self._database.read(
            lambda tx: store.list_datasets(tx.connection, parent.project, listing)
        )

    async def list_versions(self, parent: DatasetName, listing: Listing) -> Page[DatasetVersion]:
        """Return a page of a dataset's versions."""
        return await self._database.read(
            lambda tx: store.list_versions(tx.connection, parent, listing)
        )


def _version(tx: Transaction, name: DatasetVersionName) -> DatasetVersion:
    found = store.find_version(tx.connection, name)
    if found is None:
        raise not_found(name)
    return found
