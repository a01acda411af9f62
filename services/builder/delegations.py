"""Keeping the delegations of builds valid, as long as whoever ordered them has the rights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from services.builder import store, transitions
from services.builder.domain import Build, BuildState, Delegation, Failure, FailureReason
from services.builder.downstream import Downstream
from services.common.auth import Right
from services.common.errors import Reason, ServiceError
from services.common.names import BuildName
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

RIGHT_LOST = Failure(
    FailureReason.RIGHT_LOST, "whoever ordered the build no longer has the right to write here"
)


class Delegations:
    """Renews delegations; a build whose delegation is refused ends RIGHT_LOST."""

    def __init__(
        self, *, database: Database, downstream: Downstream, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._clock = clock

    async def renew_due(self) -> None:
        """Renew what is due; what cannot be renewed now is tried again at the next tick."""
        now = self._clock()
        builds = await self._database.read(lambda tx: store.builds_to_renew(tx.connection, now))
        for build in builds:
            try:
                await self.renew(build)
            except ServiceError as error:
                if error.reason is not Reason.RIGHT_MISSING:
                    logger.warning("delegation not renewed", extra={"reason": error.reason.value})
                    return
                await self.lose(build.name)

    async def renew(self, build: Build) -> Delegation:
        """Renew one build's delegation and keep it.

        Raises:
            ServiceError: RIGHT_MISSING when the principal lost the rights; SERVICE_UNAVAILABLE
                when metadata is away or does not take this service's own token.
        """
        delegation = await renewed(self._downstream, build.delegation)
        await self._database.write(
            lambda tx: store.save_delegation(tx.connection, build.name, delegation)
        )
        return delegation

    async def fresh(self, build: Build) -> Build:
        """Return a build with a delegation that is not about to expire."""
        if build.delegation.renew_time > self._clock():
            return build
        return replace(build, delegation=await self.renew(build))

    async def lose(self, name: BuildName) -> None:
        """End a build whose principal lost the rights; its worker loses the lease with it."""
        await self._database.write(lambda tx: _lose(tx, name, self._clock()))


async def renewed(downstream: Downstream, delegation: Delegation) -> Delegation:
    """Renew a delegation.

    Raises:
        ServiceError: RIGHT_MISSING when the principal lost the rights; SERVICE_UNAVAILABLE
            when metadata is away or does not take this service's own token.
    """
    try:
        return await downstream.renew_delegation(delegation)
    except ServiceError as error:
        if not _is_own_fault(error):
            raise
        message = "delegations cannot be renewed at present"
        raise ServiceError(Reason.SERVICE_UNAVAILABLE, message) from error


def _is_own_fault(error: ServiceError) -> bool:
    """Tell a refusal of this service's own token from one of the user's rights."""
    own_right = error.metadata.get("right") == Right.DELEGATE.value
    return error.reason is Reason.INVALID_CREDENTIAL or own_right


def _lose(tx: Transaction, name: BuildName, now: datetime) -> None:
    build = transitions.load(tx, name)
    if not build.state.ended:
        ended = transitions.end(tx, build, BuildState.FAILED, now, RIGHT_LOST)
        store.save_build(tx.connection, ended)
