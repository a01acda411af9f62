"""The rules of a rollout, without any input or output: state in, next state out.

A rollout goes: the new version is assigned without requests beside the live
one, its controller says that it is ready, all requests are assigned to it, the
controller says that the shares are in force, the old one is no longer assigned,
the controller drains and removes it. Each function looks only at what is stored,
so it does not matter who calls it, how often, or what crashed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.deployer.domain import (
    AssignedVariant,
    Assignment,
    Deployment,
    DeploymentState,
    EventType,
    Failure,
    JournalEntry,
    Report,
    Revision,
    RevisionCause,
    RevisionOutcome,
    VariantState,
)

EVERYTHING = 100


@dataclass(frozen=True, slots=True)
class Step:
    """What a deployment becomes next, and what the journal says about it."""

    deployment: Deployment
    entries: tuple[JournalEntry, ...] = ()


def wish(deployment: Deployment, revision: Revision) -> Step:
    """Make a revision the desired one; an unfinished one before it is superseded."""
    before = deployment.revisions
    if deployment.revisions and deployment.desired.outcome is RevisionOutcome.IN_PROGRESS:
        gone = replace(deployment.desired, outcome=RevisionOutcome.SUPERSEDED)
        before = _with(before, gone)
    wished = replace(
        deployment,
        state=DeploymentState.PENDING,
        failure=None,
        desired_revision=revision.number,
        revisions=_with(before, revision),
        update_time=revision.create_time,
    )
    kind, text = _REQUESTS[revision.cause]
    message = text.format(version=revision.version, restored=revision.restored_revision)
    return Step(wished, (JournalEntry(kind, revision.number, message, revision.actor),))


_REQUESTS = {
    RevisionCause.DEPLOY: (EventType.DEPLOY_REQUESTED, "{version} is to go live"),
    RevisionCause.ROLLBACK: (
        EventType.ROLLBACK_REQUESTED,
        "{version} of revision {restored} is to go live again",
    ),
    RevisionCause.UNDEPLOY: (EventType.STOP_REQUESTED, "nothing is to be served"),
}


def receive(deployment: Deployment, report: Report) -> Step | None:
    """Take a controller's report; None when it is older than the last one or says the same."""
    if report.generation < deployment.report.generation or report == deployment.report:
        return None
    entries = []
    for variant in report.variants:
        known = deployment.report.variant(variant.revision)
        kind = _VARIANT_EVENTS.get(variant.state)
        if kind is not None and (known is None or known.state is not variant.state):
            message = variant.failure.message if variant.failure else _VARIANT_TEXTS[kind]
            entries.append(JournalEntry(kind, variant.revision, message))
    return Step(replace(deployment, report=report), tuple(entries))


_VARIANT_EVENTS = {
    VariantState.STARTING: EventType.VARIANT_STARTING,
    VariantState.READY: EventType.VARIANT_READY,
    VariantState.FAILED: EventType.VARIANT_FAILED,
}
_VARIANT_TEXTS = {
    EventType.VARIANT_STARTING: "it is fetched and started",
    EventType.VARIANT_READY: "its health and a smoke prediction are good",
    EventType.VARIANT_FAILED: "it could not be started, or it died",
}


def next_step(deployment: Deployment, *, now: datetime, deadline: datetime) -> Step | None:
    """Return the next step, or None while there is nothing to do but wait.

    Args:
        deployment: all that is stored, the newest report included.
        now: the present.
        deadline: when an unfinished rollout is given up.
    """
    if deployment.desired.outcome is RevisionOutcome.IN_PROGRESS:
        if deployment.desired.cause is RevisionCause.UNDEPLOY:
            return _stop(deployment, now)
        step = _roll_out(deployment, now=now, deadline=deadline)
        return step or _remove_drained(deployment)
    return _remove_drained(deployment)


def is_settled(deployment: Deployment) -> bool:
    """Say whether nothing is left to be done or waited for."""
    confirmed = _confirmed(deployment) and deployment.report.weights_applied
    needed = versions_in_use(deployment)
    return (
        deployment.desired.outcome is not RevisionOutcome.IN_PROGRESS
        and (confirmed or deployment.assignment.generation == 0)
        and not _gone(deployment)
        and deployment.uses == needed
        and all(deployment.assignment.weight(r.number) is not None for r in _running(deployment))
    )


def versions_in_use(deployment: Deployment) -> frozenset[str]:
    """Return the versions that run or are about to: metadata must have their use on record."""
    wanted = {revision.version for revision in _running(deployment)}
    if deployment.desired.outcome is RevisionOutcome.IN_PROGRESS:
        wanted.add(deployment.desired.version)
    return frozenset(wanted - {""})


def fail(deployment: Deployment, failure: Failure, *, now: datetime) -> Step:
    """Give the desired revision up: what was live stays live, or becomes it again."""
    revision = replace(deployment.desired, outcome=RevisionOutcome.FAILED, failure=failure)
    kept = {deployment.live_revision: EVERYTHING} if deployment.live_revision else {}
    failed = replace(
        deployment,
        state=DeploymentState.FAILED,
        failure=failure,
        revisions=_with(deployment.revisions, revision),
        update_time=now,
    )
    if deployment.assignment.generation:
        failed = _assign(failed, kept, now)
    return Step(failed, (JournalEntry(EventType.FAILED, revision.number, failure.message),))


def _roll_out(deployment: Deployment, *, now: datetime, deadline: datetime) -> Step | None:
    if deployment.assignment.weight(deployment.desired_revision) is None:
        recorded = deployment.desired.version in deployment.uses
        return _begin(deployment, now) if recorded else None
    step = _follow(deployment, now) if _confirmed(deployment) else None
    if step is None and now >= deadline:
        return fail(deployment, _timeout(deployment, now), now=now)
    return step


def _follow(deployment: Deployment, now: datetime) -> Step | None:
    """Go on as the controller's report about the present assignment allows."""
    number, live = deployment.desired_revision, deployment.live_revision
    status = deployment.report.variant(number)
    if status is None:
        return None
    if status.state is VariantState.FAILED:
        unknown = Failure("CRASHED", "its controller did not say why")
        return fail(deployment, status.failure or unknown, now=now)
    if deployment.assignment.weight(number) == EVERYTHING:
        return _go_live(deployment, now) if deployment.report.weights_applied else None
    if status.state is VariantState.READY:
        shares = {number: EVERYTHING, live: 0} if live else {number: EVERYTHING}
        return Step(_assign(deployment, shares, now))
    return None


def _begin(deployment: Deployment, now: datetime) -> Step:
    live, number = deployment.live_revision, deployment.desired_revision
    shares = {live: EVERYTHING, number: 0} if live else {number: 0}
    rolling_back = deployment.desired.cause is RevisionCause.ROLLBACK
    state = DeploymentState.ROLLING_BACK if rolling_back else DeploymentState.ROLLING_OUT
    return Step(replace(_assign(deployment, shares, now), state=state))


def _go_live(deployment: Deployment, now: datetime) -> Step:
    number, old = deployment.desired_revision, deployment.live
    entries = [
        JournalEntry(EventType.TRAFFIC_SHIFTED, number, "it gets all requests"),
        JournalEntry(EventType.LIVE, number, f"{deployment.desired.version} is live"),
    ]
    revisions = _with(
        deployment.revisions,
        replace(deployment.desired, outcome=RevisionOutcome.LIVE, live_time=now),
    )
    if old is not None:
        revisions = _with(revisions, replace(old, outcome=RevisionOutcome.REPLACED))
        entries.append(
            JournalEntry(EventType.DRAINING, old.number, f"{old.version} finishes its requests")
        )
    changed = replace(
        deployment, state=DeploymentState.LIVE, live_revision=number, revisions=revisions
    )
    return Step(_assign(changed, {number: EVERYTHING}, now), tuple(entries))


def _stop(deployment: Deployment, now: datetime) -> Step | None:
    if deployment.assignment.variants:
        return Step(_withdraw(deployment, now))
    if _running(deployment):
        return _remove_drained(deployment)
    done = replace(deployment.desired, outcome=RevisionOutcome.LIVE, live_time=now)
    stopped = replace(
        deployment,
        state=DeploymentState.STOPPED,
        revisions=_with(deployment.revisions, done),
        update_time=now,
    )
    number = deployment.desired_revision
    return Step(stopped, (JournalEntry(EventType.STOPPED, number, "nothing is served"),))


def _withdraw(deployment: Deployment, now: datetime) -> Deployment:
    """Assign nothing. Nothing is live from here on: a newer wish must not count on it."""
    withdrawn = replace(_assign(deployment, {}, now), state=DeploymentState.ROLLING_OUT)
    if deployment.live is None:
        return withdrawn
    replaced = replace(deployment.live, outcome=RevisionOutcome.REPLACED)
    return replace(withdrawn, live_revision=0, revisions=_with(withdrawn.revisions, replaced))


def _remove_drained(deployment: Deployment) -> Step | None:
    gone = _gone(deployment)
    if not gone:
        return None
    revisions, entries = deployment.revisions, []
    for revision in gone:
        revisions = _with(revisions, replace(revision, running=False))
        message = f"{revision.version} is gone"
        entries.append(JournalEntry(EventType.DRAINED, revision.number, message))
    return Step(replace(deployment, revisions=revisions), tuple(entries))


def _gone(deployment: Deployment) -> list[Revision]:
    """Find what runs no more, as the controller of the present assignment says."""
    if not _confirmed(deployment):
        return []
    return [
        revision
        for revision in _running(deployment)
        if deployment.assignment.weight(revision.number) is None
        and deployment.report.variant(revision.number) is None
    ]


def _assign(deployment: Deployment, shares: dict[int, int], now: datetime) -> Deployment:
    chosen = [deployment.revision(number) for number in sorted(shares)]
    assignment = Assignment(
        generation=deployment.assignment.generation + 1,
        variants=tuple(_variant(revision, shares[revision.number]) for revision in chosen),
        trace_parent=deployment.desired.trace_parent,
        time=now,
    )
    revisions = deployment.revisions
    for revision in chosen:
        revisions = _with(revisions, replace(revision, running=True))
    return replace(deployment, assignment=assignment, revisions=revisions, update_time=now)


def _variant(revision: Revision, weight: int) -> AssignedVariant:
    return AssignedVariant(
        revision=revision.number,
        version=revision.version,
        artifact=revision.artifact,
        weight=weight,
        environment_digest=revision.environment_digest,
    )


def _timeout(deployment: Deployment, now: datetime) -> Failure:
    since = deployment.assignment.time or now
    seconds = round((now - since) / timedelta(seconds=1))
    if deployment.assignment.weight(deployment.desired_revision) == 0:
        return Failure("NEVER_READY", f"it was not ready within {seconds} seconds")
    return Failure("TIMEOUT", f"the requests were not shifted within {seconds} seconds")


def _confirmed(deployment: Deployment) -> bool:
    return 0 < deployment.report.generation == deployment.assignment.generation


def _running(deployment: Deployment) -> list[Revision]:
    return [revision for revision in deployment.revisions if revision.running]


def _with(revisions: Sequence[Revision], changed: Revision) -> tuple[Revision, ...]:
    kept = [revision for revision in revisions if revision.number != changed.number]
    return tuple(sorted([*kept, changed], key=lambda revision: revision.number))
