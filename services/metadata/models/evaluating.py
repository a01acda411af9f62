"""Evaluations: what was measured of a version after it was registered; never changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.common.errors import invalid_field, not_found
from services.common.names import DatasetVersionName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.datasets import store as dataset_store
from services.metadata.listing import Listing, Page
from services.metadata.models import evaluation_store, version_store
from services.metadata.models.domain import (
    Evaluation,
    EvaluationDraft,
    VersionState,
    not_choosable,
)


class Evaluating:
    """Records and lists evaluations."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self, parent: VersionName, draft: EvaluationDraft, *, creator: str, key: Key | None
    ) -> Evaluation:
        """Record an evaluation of a READY version.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, WRONG_STATE, REQUEST_ID_REUSED.
        """
        now = self._clock()

        def create(tx: Transaction) -> Evaluation:
            standing = version_store.lock_version(tx.connection, parent)
            if standing.is_deleted or standing.state is not VersionState.READY:
                raise not_choosable(parent, standing, "evaluated")
            _check_dataset(tx, draft.dataset_version, parent)
            evaluation = evaluation_store.insert_evaluation(
                tx.connection, parent, standing.pk, draft, creator=creator, now=now
            )
            change = Change(
                str(parent),
                actor=creator,
                state=standing.state.value,
                evaluation=str(evaluation.name),
            )
            publish(tx, parent.project, ChangeKind.VERSION_EVALUATED, change)
            return evaluation

        return await self._database.write(lambda tx: once(tx, key, Evaluation, lambda: create(tx)))

    async def list_evaluations(self, parent: VersionName, listing: Listing) -> Page[Evaluation]:
        """Return a page of a version's evaluations, newest first.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, INVALID_PAGE_TOKEN.
        """

        def read(tx: Transaction) -> Page[Evaluation]:
            standing = version_store.find_standing(tx.connection, parent)
            if standing is None:
                raise not_found(parent)
            return evaluation_store.list_evaluations(tx.connection, parent, standing.pk, listing)

        return await self._database.read(read)


def _check_dataset(tx: Transaction, dataset_version: str, parent: VersionName) -> None:
    if dataset_version:
        name = DatasetVersionName.parse(dataset_version, "evaluation.dataset_version")
        if name.project != parent.project:  # or it would tell what others have
            raise invalid_field("evaluation.dataset_version", "must be of the version's project")
        if dataset_store.find_version(tx.connection, name) is None:
            raise not_found(name)
