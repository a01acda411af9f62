"""Wishes: deploy, roll back, stop. Each becomes one revision, in one transaction.

Nothing outside the database is touched here but by reading: the reconciler makes
what is so into what was wished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from services.common import telemetry
from services.common.auth import Right
from services.common.errors import (
    Reason,
    ServiceError,
    etag_mismatch,
    invalid_field,
    not_found,
    wrong_state,
)
from services.common.names import DeploymentName, EnvironmentName, VersionName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, answered, once
from services.deployer.domain import (
    Candidate,
    Deployment,
    Environment,
    Gate,
    Revision,
    RevisionCause,
    RevisionOutcome,
    Step,
    Verdict,
)
from services.deployer.environments import gates
from services.deployer.environments.evidence import Witness
from services.deployer.metadata import Metadata
from services.deployer.rollouts import beside, journal, rules
from services.deployer.rollouts.assigning import running_variant
from services.deployer.rollouts.plans import HeaderMatch, RolloutPlan, ServingSpec
from services.deployer.store import crossings
from services.deployer.store import deployments as store
from services.deployer.store.environments import find_environment

JUDGEMENTS = 3
"""How often the gates judge a version anew because what they judged by had changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wishes something, why, and how the call is made safe."""

    actor: str
    credential: str = field(repr=False)
    reason: str
    etag: str
    key: Key | None


@dataclass(frozen=True, slots=True)
class Wished:
    """The answer to a wish."""

    deployment: Deployment
    revision: int


@dataclass(frozen=True, slots=True)
class Beside:
    """What a version gets that runs beside the live one: copies, or the requests with a header."""

    cause: RevisionCause
    serving: ServingSpec
    mirror_percent: int = 0
    header_match: HeaderMatch | None = None


Change = Callable[[Deployment, datetime], Step | None]
"""Takes the step that somebody asked for; None when there is none to take."""
Draft = Callable[[Transaction, Deployment], Revision | None]
"""Makes the revision of a wish from the deployment as it is; None when it is so already."""


class _OutdatedError(Exception):
    """What gates judged by is not so any more."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What gates said of a version, and what they judged by."""

    candidate: Candidate
    gates: tuple[Gate, ...]
    live: str
    verdicts: tuple[Verdict, ...]

    def check(self, environment: Environment | None, deployment: Deployment) -> None:
        """Raise _OutdatedError unless the gates would judge by the same now."""
        gates = environment.gates if environment is not None else ()
        is_judged = bool(self.verdicts) and _live_version(deployment) == self.live
        if gates != self.gates or (gates and not is_judged):
            raise _OutdatedError


class Rollout:
    """What people wish of deployments."""

    def __init__(self, database: Database, metadata: Metadata, witness: Witness) -> None:
        self._database = database
        self._metadata = metadata
        self._witness = witness

    async def deploy(
        self,
        parent: EnvironmentName,
        version: str,
        order: Order,
        *,
        plan: RolloutPlan,
        serving: ServingSpec,
    ) -> Wished:
        """Wish a version live, if the environment's gates let it pass."""
        if (first := await self._answered(order)) is not None:
            return first
        candidate = await self._metadata.resolve(version, credential=order.credential)
        name = _deployment_of(parent, candidate)
        for _ in range(JUDGEMENTS):
            environment, current = await self._environment(parent), await self._find(name)
            live = _live_version(current)
            verdicts: tuple[Verdict, ...] = ()
            if current is None or not _is_live(current, candidate, serving):
                verdicts = await self._judge(environment, candidate, live, order.credential)
                await self._refuse(name, candidate, verdicts, order)
            judged = _Judged(candidate, environment.gates, live, verdicts)
            with contextlib.suppress(_OutdatedError):
                return await self._deploy(name, order, judged, plan=plan, serving=serving)
        raise etag_mismatch(name, current=current.etag if current is not None else "")

    async def _deploy(
        self,
        name: DeploymentName,
        order: Order,
        judged: _Judged,
        *,
        plan: RolloutPlan,
        serving: ServingSpec,
    ) -> Wished:
        """Wish a version live that was judged; _OutdatedError when its gates must judge anew."""
        candidate, trace_parent = judged.candidate, telemetry.trace_parent()

        def draft(tx: Transaction, deployment: Deployment) -> Revision | None:
            if _is_live(deployment, candidate, serving):
                return None
            judged.check(find_environment(tx.connection, name.parent), deployment)
            return Revision(
                number=deployment.last_revision + 1,
                version=candidate.name,
                artifact=candidate.artifact,
                environment_digest=candidate.environment_digest,
                actor=order.actor,
                reason=order.reason,
                cause=RevisionCause.DEPLOY,
                create_time=datetime.now(UTC),
                verdicts=judged.verdicts,
                trace_parent=trace_parent,
                plan=plan,
                serving=serving,
            )

        sampled = serving.sampling is not None
        return await self._wish(name, order, draft, create=True, sampled=sampled)

    async def check(
        self, parent: EnvironmentName, version: str, further: tuple[Gate, ...], *, credential: str
    ) -> tuple[Verdict, ...]:
        """Say how further gates, then the environment's own, judge a version."""
        environment = await self._environment(parent)
        environment = replace(environment, gates=(*further, *environment.gates))
        candidate = await self._metadata.resolve(version, credential=credential)
        current = await self._find(_deployment_of(parent, candidate))
        return await self._judge(environment, candidate, _live_version(current), credential)

    async def roll_back(self, name: DeploymentName, revision: int, order: Order) -> Wished:
        """Wish an earlier revision's version live again; 0: the one live before."""
        if (first := await self._answered(order)) is not None:
            return first
        trace_parent = telemetry.trace_parent()
        sampled = await self._database.read(lambda tx: _was_sampled(tx, name, revision))

        def draft(tx: Transaction, deployment: Deployment) -> Revision:
            target = _restorable(tx, deployment, revision)
            return Revision(
                number=deployment.last_revision + 1,
                version=target.version,
                artifact=target.artifact,
                environment_digest=target.environment_digest,
                actor=order.actor,
                reason=order.reason,
                cause=RevisionCause.ROLLBACK,
                create_time=datetime.now(UTC),
                restored_revision=target.number,
                trace_parent=trace_parent,
                serving=target.serving,
                variant=running_variant(deployment, target),
            )

        return await self._wish(name, order, draft, sampled=sampled, refusing=False)

    async def stop(self, name: DeploymentName, order: Order) -> Wished:
        """Wish that nothing is served any more."""
        if (first := await self._answered(order)) is not None:
            return first
        trace_parent = telemetry.trace_parent()

        def draft(_tx: Transaction, deployment: Deployment) -> Revision | None:
            if deployment.desired.cause is RevisionCause.UNDEPLOY:
                return None
            return Revision(
                number=deployment.last_revision + 1,
                version="",
                artifact="",
                environment_digest="",
                actor=order.actor,
                reason=order.reason,
                cause=RevisionCause.UNDEPLOY,
                create_time=datetime.now(UTC),
                trace_parent=trace_parent,
            )

        return await self._wish(name, order, draft)

    async def set_beside(
        self, parent: EnvironmentName, version: str, order: Order, *, how: Beside
    ) -> Wished:
        """Wish that a version gets copies of the live one's requests, or those with a header."""
        if (first := await self._answered(order)) is not None:
            return first
        await self._environment(parent)
        candidate = await self._metadata.resolve(version, credential=order.credential)
        trace_parent = telemetry.trace_parent()

        def draft(_tx: Transaction, deployment: Deployment) -> Revision:
            if deployment.live is None:
                message = f"nothing is live in {deployment.name} for it to run beside"
                raise wrong_state(deployment.name, deployment.state.value, message)
            return Revision(
                number=deployment.last_revision + 1,
                version=candidate.name,
                artifact=candidate.artifact,
                environment_digest=candidate.environment_digest,
                actor=order.actor,
                reason=order.reason,
                cause=how.cause,
                create_time=datetime.now(UTC),
                trace_parent=trace_parent,
                serving=how.serving,
                mirror_percent=how.mirror_percent,
                header_match=how.header_match,
            )

        name, sampled = _deployment_of(parent, candidate), how.serving.sampling is not None
        return await self._wish(name, order, draft, sampled=sampled)

    async def end_beside(self, name: DeploymentName, order: Order, cause: RevisionCause) -> Wished:
        """End the shadow or the preview there is."""

        def end(deployment: Deployment, now: datetime) -> Step | None:
            revision = deployment.beside.get(cause)
            if revision is None:
                return None
            return beside.end(deployment, revision, now, actor=order.actor)

        return await self._change(name, order, end, f"there is no {cause.lower()}")

    async def go_on(self, name: DeploymentName, order: Order) -> Wished:
        """Let a rollout that waits for somebody take its next step."""

        def go_on(deployment: Deployment, _now: datetime) -> Step | None:
            return rules.go_on(deployment, actor=order.actor, reason=order.reason)

        return await self._change(name, order, go_on, "no rollout waits for somebody to go on")

    async def abort(self, name: DeploymentName, order: Order) -> Wished:
        """Give an unfinished rollout up."""

        def abort(deployment: Deployment, now: datetime) -> Step | None:
            return rules.abort(deployment, actor=order.actor, reason=order.reason, now=now)

        return await self._change(name, order, abort, "there is no unfinished rollout")

    async def _change(
        self, name: DeploymentName, order: Order, change: Change, otherwise: str
    ) -> Wished:
        """Take a step that somebody asked for; refuse with WRONG_STATE when there is none."""

        def work(tx: Transaction) -> Wished:
            deployment = store.find_deployment(tx.connection, name, lock=True)
            if deployment is None or not deployment.last_revision:
                raise not_found(name)
            if order.etag and order.etag != deployment.etag:
                raise etag_mismatch(name, current=deployment.etag)
            step = change(deployment, datetime.now(UTC))
            if step is None:
                raise wrong_state(name, deployment.state.value, f"{otherwise} in {name}")
            return Wished(journal.record(tx, deployment, step), deployment.desired_revision)

        return await self._database.write(lambda tx: once(tx, order.key, Wished, lambda: work(tx)))

    async def _wish(
        self,
        name: DeploymentName,
        order: Order,
        draft: Draft,
        *,
        create: bool = False,
        sampled: bool = False,
        refusing: bool = True,
    ) -> Wished:
        """Store a wish, its actor's delegation and its journal entry together."""
        if not create and await self._find(name) is None:
            raise not_found(name)
        delegation = await self._delegate(name, order, sampled=sampled, refusing=refusing)

        def work(tx: Transaction) -> Wished:
            now = datetime.now(UTC)
            deployment = store.claim_deployment(tx.connection, name, now)
            if order.etag and order.etag != deployment.etag:
                raise etag_mismatch(name, current=deployment.etag)
            revision = draft(tx, deployment)
            if revision is None:
                return Wished(deployment, deployment.live_revision)
            after = journal.record(tx, deployment, _wished(deployment, revision, now))
            crossings.save_delegation(tx.connection, name, revision.number, delegation, now)
            return Wished(after, revision.number)

        return await self._database.write(lambda tx: once(tx, order.key, Wished, lambda: work(tx)))

    async def _delegate(
        self, name: DeploymentName, order: Order, *, sampled: bool, refusing: bool
    ) -> str:
        """Get a delegation, which may write where samples are taken.

        Who may not write cannot wish for samples; but `refusing` nothing else, such as a rollback,
        on that account: there will be no samples.
        """
        further = (Right.WRITE,) if sampled else ()
        try:
            return await self._metadata.delegate(name, *further, credential=order.credential)
        except ServiceError as error:
            if refusing or not sampled or error.reason is not Reason.RIGHT_MISSING:
                raise
            return await self._metadata.delegate(name, credential=order.credential)

    async def _judge(
        self,
        environment: Environment,
        candidate: Candidate,
        live: str,
        credential: str,
    ) -> tuple[Verdict, ...]:
        if not environment.gates:
            return ()
        evidence = await self._witness.gather(environment, candidate, live, credential=credential)
        return gates.judge(environment.gates, evidence)

    async def _refuse(
        self,
        name: DeploymentName,
        candidate: Candidate,
        verdicts: tuple[Verdict, ...],
        order: Order,
    ) -> None:
        """Refuse a version that a gate refused, and put it in the journal."""
        explanation = gates.refusals(verdicts)
        if not explanation:
            return
        message = f"{candidate.name} may not go live here: {explanation}"
        await self._database.write(
            lambda tx: journal.refuse(tx, name, message=message, actor=order.actor)
        )
        failed = ",".join(verdict.gate_id for verdict in verdicts if not verdict.passed)
        raise ServiceError(Reason.GATE_REFUSED, message, resource=candidate.name, gates=failed)

    async def _answered(self, order: Order) -> Wished | None:
        return await self._database.read(lambda tx: answered(tx, order.key, Wished))

    async def _environment(self, name: EnvironmentName) -> Environment:
        found = await self._database.read(lambda tx: find_environment(tx.connection, name))
        if found is None:
            raise not_found(name)
        return found

    async def _find(self, name: DeploymentName) -> Deployment | None:
        return await self._database.read(lambda tx: store.find_deployment(tx.connection, name))


def _deployment_of(parent: EnvironmentName, candidate: Candidate) -> DeploymentName:
    version = VersionName.parse(candidate.name)
    if version.project != parent.project:
        raise invalid_field("version", "must be of the environment's project")
    return DeploymentName(parent.project, parent.environment, version.model)


def _live_version(deployment: Deployment | None) -> str:
    """Return the version that answers; empty: none does."""
    live = None if deployment is None else deployment.live
    return "" if live is None else live.version


def _is_live(deployment: Deployment, candidate: Candidate, serving: ServingSpec) -> bool:
    """Say whether a version answers already, served as is wished, and nothing else is wished."""
    live = deployment.live
    if live is None or deployment.desired_revision != deployment.live_revision:
        return False
    return live.version == candidate.name and live.serving == serving


def _wished(deployment: Deployment, revision: Revision, now: datetime) -> Step:
    if revision.cause in (RevisionCause.SHADOW, RevisionCause.PREVIEW):
        return beside.wish(deployment, revision, now)
    return rules.wish(deployment, revision)


def _was_sampled(tx: Transaction, name: DeploymentName, revision: int) -> bool:
    """Say whether the requests of the revision to go back to were sampled."""
    deployment = store.find_deployment(tx.connection, name)
    if deployment is None or not deployment.last_revision:
        return False
    return _restorable(tx, deployment, revision).serving.sampling is not None


def _restorable(tx: Transaction, deployment: Deployment, number: int) -> Revision:
    """Find the revision to go back to; an unfinished wish goes back to what is live."""
    name, live = deployment.name, deployment.live
    if number:
        target = store.find_revision(tx.connection, name, number)
        if target is None:
            raise not_found(f"revision {number} of {name}")
    elif deployment.desired.outcome is RevisionOutcome.IN_PROGRESS and live is not None:
        target = live
    else:
        target = store.find_last_live(tx.connection, name, other_than=deployment.live_revision)
    if target is None or target.live_time is None or not target.version:
        message = f"{name} has no earlier revision that was live"
        raise ServiceError(Reason.NOTHING_TO_ROLL_BACK, message, resource=str(name))
    return target
