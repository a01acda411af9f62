"""What an attempt is given before it trains, and what it brings: secrets, the fetched source."""

from __future__ import annotations

import logging
from dataclasses import replace

from services.builder import store, transitions
from services.builder.delegations import Delegations
from services.builder.domain import Build, FetchedSource, Lease, lease_lost
from services.builder.downstream import Downstream
from services.builder.secrets.keeping import Vault
from services.common.errors import Reason, ServiceError, wrong_state
from services.common.names import SecretName
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)


class Provisions:
    """Serves the holder of a lease."""

    def __init__(
        self,
        *,
        database: Database,
        downstream: Downstream,
        delegations: Delegations,
        vault: Vault,
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._delegations = delegations
        self._vault = vault

    async def secrets(self, lease: Lease) -> dict[SecretName, str]:
        """Return the values of the secrets that a build names.

        Whoever may BUILD in a project may have its builds use its secrets; that was checked when
        the build was ordered. Here metadata is asked again, by a renewal of the delegation.

        Raises:
            ServiceError: LEASE_LOST; RESOURCE_NOT_FOUND for a secret that was deleted;
                RIGHT_MISSING, after which the build is RIGHT_LOST.
        """
        build = await self._database.read(lambda tx: _held(tx, lease))
        names = [SecretName.parse(name) for name in build.spec.secret_names]
        if not names:
            return {}
        try:
            await self._delegations.renew(build)
        except ServiceError as error:
            if error.reason is Reason.RIGHT_MISSING:
                await self._delegations.lose(build.name)
            raise
        values = await self._vault.values(names)
        logger.info(
            "secrets handed out",
            extra={
                "build": str(build.name),
                "worker": build.worker,
                "creator": build.creator,
                "secrets": ", ".join(map(str, names)),
            },
        )
        return values

    async def keep_source(self, lease: Lease, fetched: FetchedSource) -> None:
        """Keep what was fetched from a build's git source, for this attempt and later ones.

        Raises:
            ServiceError: LEASE_LOST, BYTES_MISSING; WRONG_STATE when it has another source.
        """
        build = await self._database.read(lambda tx: _held(tx, lease))
        if build.spec.git is None or build.source not in ("", fetched.source):
            message = f"{build.name} has another source already"
            raise wrong_state(build.name, build.state.value, message)
        build = await self._delegations.fresh(build)
        await self._downstream.hold_artifact(
            build.name, fetched.source, credential=build.delegation.credential
        )
        await self._database.write(lambda tx: _keep(tx, lease, fetched))


def _held(tx: Transaction, lease: Lease) -> Build:
    build = store.find_build(tx.connection, lease.build)
    if build is None or not build.held_by(lease):
        raise lease_lost(lease.build)
    return build


def _keep(tx: Transaction, lease: Lease, fetched: FetchedSource) -> None:
    build = transitions.load_held(tx, lease)
    if build.fetched is None:
        store.save_build(tx.connection, replace(build, fetched=fetched))
