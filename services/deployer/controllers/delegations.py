"""The delegations of running revisions: kept, renewed when used and before they are too old.

A delegation that expired may still be renewed for 30 days. It is therefore
renewed when it is needed, and once a day while its revision runs.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from services.common.auth import Right
from services.common.errors import Reason, ServiceError, wrong_state
from services.common.names import DeploymentName
from services.common.sql.database import Database
from services.deployer.metadata import Grant, Metadata
from services.deployer.store import crossings

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
LOST = frozenset({Reason.RIGHT_MISSING, Reason.INVALID_CREDENTIAL})


class Delegations:
    """Credentials that act for whoever made a wish."""

    def __init__(self, database: Database, metadata: Metadata, *, renew_hours: float) -> None:
        self._database = database
        self._metadata = metadata
        self._age = timedelta(hours=renew_hours)

    async def renewed(self, name: DeploymentName, revision: int) -> str:
        """Return a valid credential of a revision's actor, for the deployer's own calls."""
        grant = await self._metadata.renew(await self._find(name, revision))
        now = datetime.now(UTC)
        await self._database.write(
            lambda tx: crossings.save_delegation(
                tx.connection, name, revision, grant.credential, now
            )
        )
        return grant.credential

    async def reading(self, name: DeploymentName, revision: int) -> Grant:
        """Return a credential of a revision's actor that can only read."""
        return await self._metadata.renew(await self._find(name, revision), Right.READ)

    async def run(self) -> None:
        """Renew what grows old, for ever."""
        while True:
            await self._sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        before = datetime.now(UTC) - self._age
        try:
            aging = await self._database.read(
                lambda tx: crossings.list_aging_delegations(tx.connection, before=before)
            )
            for name, revision in aging:
                await self._renew(name, revision)
        except ServiceError as error:
            logger.warning("delegations not renewed, later again", extra={"error": error.message})

    async def _renew(self, name: DeploymentName, revision: int) -> None:
        try:
            await self.renewed(name, revision)
        except ServiceError as error:
            if error.reason not in LOST:
                raise
            # What is live stays live; only its artifact cannot be fetched again.
            extra = {"deployment": str(name), "revision": revision, "error": error.message}
            logger.warning("whoever deployed this lost the right", extra=extra)

    async def _find(self, name: DeploymentName, revision: int) -> str:
        found = await self._database.read(
            lambda tx: crossings.find_delegation(tx.connection, name, revision)
        )
        if found is None:
            raise wrong_state(name, "", f"revision {revision} of {name} has no delegation")
        return found
