"""Sampled requests of a variant: registered as a dataset version for whoever deployed it."""

from __future__ import annotations

from datetime import UTC, datetime

from services.common.errors import not_found, wrong_state
from services.common.names import DeploymentName
from services.common.sql.database import Database, Transaction
from services.deployer.controllers.assignments import check_holder
from services.deployer.controllers.delegations import Delegations
from services.deployer.domain import EventType, JournalEntry, Revision, Sample
from services.deployer.metadata import Metadata
from services.deployer.rollouts import journal
from services.deployer.store import deployments as store


class Samples:
    """What controllers sampled."""

    def __init__(self, database: Database, metadata: Metadata, delegations: Delegations) -> None:
        self._database = database
        self._metadata = metadata
        self._delegations = delegations

    async def record(
        self, name: DeploymentName, number: int, sample: Sample, *, controller: str
    ) -> str:
        """Register a sample with the rights of whoever deployed it; return the dataset version.

        Raises:
            ServiceError: LEASE_LOST, WRONG_STATE when the revision is not to be sampled,
                RIGHT_MISSING when whoever deployed it may not write.
        """
        revision = await self._database.read(lambda tx: _sampled(tx, name, number, controller))
        credential = await self._delegations.renewed(name, number)
        version = await self._metadata.record_sample(name, revision, sample, credential=credential)
        message = f"{sample.row_count:,} rows of its requests are in {version}"
        entry = JournalEntry(EventType.SAMPLE_RECORDED, number, message)

        def note(tx: Transaction) -> None:
            store.save_sample(tx.connection, name, number, version)
            journal.publish(tx, name, [entry])

        await self._database.write(note)
        return version


def _sampled(tx: Transaction, name: DeploymentName, number: int, controller: str) -> Revision:
    check_holder(tx, name.parent, controller, datetime.now(UTC))
    revision = store.find_revision(tx.connection, name, number)
    if revision is None:
        raise not_found(f"revision {number} of {name}")
    if revision.serving.sampling is None:
        message = f"the requests of revision {number} of {name} are not to be sampled"
        raise wrong_state(name, "", message)
    return revision
