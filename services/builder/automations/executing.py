"""Driving executions on, step by step, from what is in the database.

Each step can be done again: its calls carry request ids derived from the execution,
and what it found is stored only if nobody took the execution on meanwhile. So any
replica may go on where another died.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.builder import store as build_store
from services.builder import transitions
from services.builder.automations import execution_store, explaining, store
from services.builder.automations.delegating import AutomationDelegations, right_lost
from services.builder.automations.domain import (
    MAX_EXPLANATION,
    Automation,
    Execution,
    ExecutionState,
    FailureReason,
)
from services.builder.automations.downstream import Neighbours
from services.builder.domain import Build, BuildState
from services.builder.orders import Orders
from services.builder.spec import MAX_LABELS, BuildSpec, DataInput
from services.common.errors import Reason, ServiceError, may_pass
from services.common.names import BuildName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key

logger = logging.getLogger(__name__)

_BATCH = 64
_TAKEN_SECONDS = 15.0
_LATER = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class _Work:
    """An execution that was taken on, its automation, and a credential for it."""

    execution: Execution
    automation: Automation
    credential: str


class Executing:
    """Drives executions on; replicas share the work."""

    def __init__(
        self,
        *,
        database: Database,
        orders: Orders,
        neighbours: Neighbours,
        delegations: AutomationDelegations,
        clock: Callable[[], datetime],
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._orders = orders
        self._neighbours = neighbours
        self._delegations = delegations
        self._clock = clock
        self._poll = timedelta(seconds=poll_seconds)
        self._steps = {
            ExecutionState.PENDING: self._begin,
            ExecutionState.BUILDING: self._await_build,
            ExecutionState.CHECKING: self._check,
            ExecutionState.DEPLOYING: self._deploy,
        }

    async def drive(self) -> None:
        """Drive on whatever can be."""
        taken = await self._database.write(
            lambda tx: execution_store.take_executions(
                tx.connection, self._clock(), seconds=_TAKEN_SECONDS, limit=_BATCH
            )
        )
        await asyncio.gather(*(self._drive(execution) for execution in taken))

    async def _drive(self, execution: Execution) -> None:
        """Take one step, or tell of the end; what cannot be done now is tried again."""
        automation = await self._database.read(
            lambda tx: store.find_automation(tx.connection, execution.name.parent)
        )
        if automation is None or automation.uid != execution.uid:
            return  # deleted meanwhile
        try:
            if execution.state.ended:
                await self._tell(execution, automation)
            else:
                await self._step(execution, automation)
        except ServiceError as error:
            if not may_pass(error):
                raise
            extra = {"execution": str(execution.name), "reason": error.reason.value}
            logger.warning("execution waits", extra=extra)
            await self._save(execution, after=_LATER)

    async def _step(self, execution: Execution, automation: Automation) -> None:
        try:
            credential = await self._delegations.fresh(automation)
            after = await self._steps[execution.state](_Work(execution, automation, credential))
        except ServiceError as error:
            if may_pass(error):
                raise
            after = await self._refused(execution, automation, error)
        wait = self._poll if after == execution else timedelta()
        kept = await self._save(after, after=wait)
        if not kept and after.build and not execution.build:
            await self._abandon(after)

    async def _refused(
        self, execution: Execution, automation: Automation, error: ServiceError
    ) -> Execution:
        """End an execution that a service refused something, for lost rights or otherwise."""
        if not await self._delegations.still_may(automation, error):
            why = f"{automation.principal} lost a right that it needs: {error.message}"
            return right_lost(execution, why, self._clock())
        if error.reason is Reason.INVALID_CREDENTIAL:
            return execution  # its credential was too old; the new one is taken next time
        why = error.message
        return self._ended(execution, ExecutionState.FAILED, why, FailureReason.REFUSED)

    async def _begin(self, work: _Work) -> Execution:
        """Order the build, once no earlier execution is in progress."""
        execution = work.execution
        if await self._database.read(lambda tx: execution_store.waits(tx.connection, execution)):
            return execution
        spec = await self._spec(work)
        build = await self._orders.create(
            execution.name.project,
            execution.model,
            spec,
            creator=execution.principal,
            credential=work.credential,
            key=_key(execution, "build"),
        )
        return replace(
            execution,
            state=ExecutionState.BUILDING,
            build=build.name.build,
            start_time=self._clock(),
            explanation=f"build {build.name.build} was ordered",
        )

    async def _await_build(self, work: _Work) -> Execution:
        execution = work.execution
        build = await self._orders.get(BuildName(execution.name.project, execution.build))
        if not build.state.ended:
            return execution
        if build.state is BuildState.CANCELLED:
            why = f"build {build.name.build} was cancelled"
            return self._ended(execution, ExecutionState.CANCELLED, why)
        if build.state is BuildState.FAILED:
            why = explaining.build_failed(build)
            return self._ended(execution, ExecutionState.FAILED, why, FailureReason.BUILD_FAILED)
        execution = replace(execution, version=build.version)
        if execution.action.deploy is None:
            why = explaining.built(execution)
            return self._ended(execution, ExecutionState.SUCCEEDED, why)
        return replace(execution, state=ExecutionState.CHECKING)

    async def _check(self, work: _Work) -> Execution:
        """Have the deployer judge the version by the conditions."""
        execution, deploy = work.execution, work.execution.action.deploy
        if deploy is None:
            raise ValueError("the execution deploys nothing")
        verdicts = await self._neighbours.check(
            deploy, execution.version, credential=work.credential
        )
        execution = replace(execution, verdicts=verdicts)
        if not all(verdict.passed for verdict in verdicts):
            why = explaining.refused(execution)
            return self._ended(execution, ExecutionState.SKIPPED, why)
        return replace(execution, state=ExecutionState.DEPLOYING)

    async def _deploy(self, work: _Work) -> Execution:
        """Wish the version live, then wait for what becomes of it."""
        execution = work.execution
        if not execution.revision:
            reason = explaining.reason(execution)
            try:
                deployment, revision = await self._neighbours.deploy(
                    execution, reason, credential=work.credential
                )
            except ServiceError as error:
                if error.reason is not Reason.GATE_REFUSED:
                    raise
                return self._ended(execution, ExecutionState.SKIPPED, error.message)
            execution = replace(execution, deployment=deployment, revision=revision)
        rollout = await self._neighbours.rollout(execution, credential=work.credential)
        if rollout.outcome == "IN_PROGRESS":
            return execution
        if rollout.outcome in ("LIVE", "REPLACED"):
            return self._ended(execution, ExecutionState.SUCCEEDED, explaining.live(execution))
        superseded = rollout.outcome == "SUPERSEDED"
        failure = FailureReason.SUPERSEDED if superseded else FailureReason.DEPLOY_FAILED
        why = explaining.not_live(execution, rollout)
        return self._ended(execution, ExecutionState.FAILED, why, failure)

    async def _spec(self, work: _Work) -> BuildSpec:
        """Return what to build: with the newest data, and labels that say who ordered it."""
        action, occurrence = work.execution.action, work.execution.occurrence
        data = list(action.build.data)
        for newest in action.newest_data:
            version = occurrence.dataset_version
            if version.rpartition("/versions/")[0] != newest.dataset:
                version = await self._newest(newest.dataset, work.credential)
            data.append(DataInput(newest.name, version))
        labels = {"automation": work.automation.name.automation, **action.build.labels}
        fit = len(labels) <= MAX_LABELS
        return replace(
            action.build, data=tuple(data), labels=labels if fit else action.build.labels
        )

    async def _newest(self, dataset: str, credential: str) -> str:
        numbers = await self._neighbours.newest_versions(dataset, after=0, credential=credential)
        if not numbers:
            message = f"{dataset} has no version to build with"
            raise ServiceError(Reason.RESOURCE_NOT_FOUND, message, resource=dataset)
        return f"{dataset}/versions/{numbers[-1]}"

    async def _tell(self, execution: Execution, automation: Automation) -> None:
        """Tell the project's ledger how an execution ended; webhooks deliver it."""
        try:
            credential = await self._delegations.vouched(automation)
            await self._neighbours.tell(execution, credential=credential)
        except ServiceError as error:
            if may_pass(error):
                raise
            # Whoever lost the rights to act here cannot tell of it either.
            extra = {"execution": str(execution.name), "reason": error.reason.value}
            logger.warning("execution's end not told", extra=extra)
        await self._database.write(
            lambda tx: execution_store.save_execution(tx.connection, execution, look_time=None)
        )

    async def _save(self, execution: Execution, *, after: timedelta) -> bool:
        look_time = self._clock() + after
        return await self._database.write(
            lambda tx: execution_store.save_execution(tx.connection, execution, look_time=look_time)
        )

    async def _abandon(self, execution: Execution) -> None:
        """Cancel a build that was ordered while its execution was cancelled."""
        name = BuildName(execution.name.project, execution.build)

        def abandon(tx: Transaction) -> None:
            found = execution_store.find_execution(tx.connection, execution.name)
            if found is None or found.state is ExecutionState.CANCELLED:
                build: Build = transitions.cancel(tx, transitions.load(tx, name), self._clock())
                build_store.save_build(tx.connection, build)

        await self._database.write(abandon)

    def _ended(
        self,
        execution: Execution,
        state: ExecutionState,
        why: str,
        failure: FailureReason | None = None,
    ) -> Execution:
        return replace(
            execution,
            state=state,
            explanation=why[:MAX_EXPLANATION],
            failure=failure,
            end_time=self._clock(),
        )


def _key(execution: Execution, purpose: str) -> Key:
    """Make a call of the execution's own idempotent, as a caller's request id does."""
    fingerprint = hashlib.sha256(str(execution.name).encode()).digest()
    return Key(execution.principal, execution.request_id(purpose), "automations", fingerprint)
