"""Which deployments use which versions; written by the deployer, read by guards and lineage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.common.errors import not_found
from services.common.names import DeploymentName, ModelName, VersionName
from services.common.sql.database import Database, Transaction
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.lineage import store
from services.metadata.lineage.domain import VersionUse
from services.metadata.listing import Listing, Page
from services.metadata.models import version_store
from services.metadata.models.domain import not_choosable


class Usage:
    """Records uses of versions."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def start(self, version: VersionName, user: DeploymentName) -> VersionUse:
        """Record that a deployment uses a version; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when the version is not READY.
        """
        now = self._clock()

        def start(tx: Transaction) -> VersionUse:
            standing = version_store.lock_version(tx.connection, version)
            if not standing.may_be_chosen:
                raise not_choosable(version, standing, "used")
            pk = standing.pk
            use = store.newest_use(tx.connection, pk, str(user))
            if use is not None and use.end_time is None:
                return use
            store.start_use(tx.connection, pk, str(user), now)
            _publish(tx, ChangeKind.USE_STARTED, version, user)
            return VersionUse(version, user, now, None)

        return await self._database.write(start)

    async def end(self, version: VersionName, user: DeploymentName) -> VersionUse:
        """Record that a use ended; again changes nothing.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND when it never began.
        """
        now = self._clock()

        def end(tx: Transaction) -> VersionUse:
            pk = version_store.lock_version(tx.connection, version).pk
            use = store.newest_use(tx.connection, pk, str(user))
            if use is None:
                raise not_found(f"the use of {version} by {user}")
            if use.end_time is not None:
                return use
            store.end_use(tx.connection, pk, str(user), now)
            _publish(tx, ChangeKind.USE_ENDED, version, user)
            return VersionUse(version, user, use.start_time, now)

        return await self._database.write(end)

    async def list_uses(
        self, parent: ModelName | VersionName, listing: Listing, *, current_only: bool
    ) -> Page[VersionUse]:
        """Return a page of uses, newest first."""
        return await self._database.read(
            lambda tx: store.list_uses(tx.connection, parent, listing, current_only=current_only)
        )


def _publish(tx: Transaction, kind: ChangeKind, version: VersionName, user: DeploymentName) -> None:
    publish(tx, version.project, kind, Change(str(version), user=str(user)))
