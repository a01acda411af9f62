"""Keeping the delegations of automations valid, as long as whoever wrote them has the rights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from services.builder.automations import execution_store, store
from services.builder.automations.domain import (
    Automation,
    Execution,
    ExecutionState,
    FailureReason,
)
from services.builder.delegations import renewed
from services.builder.domain import Delegation
from services.builder.downstream import Downstream
from services.common.errors import Reason, ServiceError
from services.common.sql.database import Database, Transaction

logger = logging.getLogger(__name__)

LOST = frozenset({Reason.RIGHT_MISSING, Reason.INVALID_CREDENTIAL})


class AutomationDelegations:
    """Renews delegations; an automation whose delegation is refused is suspended."""

    def __init__(
        self, *, database: Database, downstream: Downstream, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._downstream = downstream
        self._clock = clock

    async def renew_due(self) -> None:
        """Renew what is due; what cannot be renewed now is tried again at the next tick."""
        now = self._clock()
        found = await self._database.read(lambda tx: store.automations_to_renew(tx.connection, now))
        for automation in found:
            try:
                await self._renew(automation)
            except ServiceError as error:
                if error.reason not in LOST:
                    logger.warning("delegation not renewed", extra={"reason": error.reason.value})
                    return
                await self.suspend(automation, error)

    async def fresh(self, automation: Automation) -> str:
        """Return a credential that acts for whoever wrote an automation.

        Raises:
            ServiceError: RIGHT_MISSING or INVALID_CREDENTIAL when they lost the rights.
        """
        if automation.delegation.renew_time > self._clock():
            return automation.delegation.credential
        return (await self._renew(automation)).credential

    async def vouched(self, automation: Automation) -> str:
        """Return such a credential, renewed just now: so metadata knows that the work is ours."""
        return (await self._renew(automation)).credential

    async def still_may(self, automation: Automation, error: ServiceError) -> bool:
        """Say whether whoever wrote an automation has its rights, after a service doubted it.

        When not, the automation is suspended. It may only be that a credential was too old.
        """
        if error.reason not in LOST:
            return True
        try:
            await self._renew(automation)
        except ServiceError as lost:
            if lost.reason not in LOST:
                raise
            await self.suspend(automation, lost)
            return False
        return True

    async def suspend(self, automation: Automation, error: ServiceError) -> None:
        """Suspend an automation whose principal lost the rights, with what waits to begin."""
        why = f"{automation.principal} lost a right that it needs: {error.message}"
        logger.warning("automation suspended", extra={"automation": str(automation.name)})
        await self._database.write(lambda tx: _suspend(tx, automation, why, self._clock()))

    async def _renew(self, automation: Automation) -> Delegation:
        delegation = await renewed(self._downstream, automation.delegation)
        await self._database.write(
            lambda tx: store.save_delegation(tx.connection, automation, delegation)
        )
        return delegation


def _suspend(tx: Transaction, seen: Automation, why: str, now: datetime) -> None:
    found = store.find_automation(tx.connection, seen.name, lock=True)
    if found is None or (found.uid, found.edition) != (seen.uid, seen.edition):
        return
    suspended = replace(found, suspension=why, next_time=None, look_time=None)
    store.save_automation(tx.connection, suspended)
    for execution in execution_store.active_executions(tx.connection, seen.name):
        if execution.state is ExecutionState.PENDING:
            execution_store.cancel_execution(tx.connection, right_lost(execution, why, now))


def right_lost(execution: Execution, why: str, now: datetime) -> Execution:
    """End an execution whose principal lost the rights."""
    return replace(
        execution,
        state=ExecutionState.FAILED,
        failure=FailureReason.RIGHT_LOST,
        explanation=why,
        end_time=now,
    )
