"""The rules of a rollout, without any input or output: state in, next state out.

A rollout goes: the new version is assigned without requests beside the live
one, its controller says that it is ready, it gets the shares of its plan one
after the other, each confirmed by the controller and judged by the analysis,
until it has all of them; then the old one is no longer assigned, and the
controller drains and removes it, unless it is to be kept warm. Each function
looks only at what is stored, so it does not matter who calls it, how often, or
what crashed before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.deployer.domain import (
    Deployment,
    DeploymentState,
    EventType,
    Failure,
    JournalEntry,
    Progress,
    Report,
    Revision,
    RevisionCause,
    RevisionOutcome,
    Step,
    VariantReport,
    VariantState,
)
from services.deployer.rollouts import beside, stepping
from services.deployer.rollouts.assigning import (
    assign,
    confirmed,
    gone,
    running,
    shared,
    with_revision,
    withdraw,
)
from services.deployer.rollouts.plans import EVERYTHING


def wish(deployment: Deployment, revision: Revision) -> Step:
    """Make a revision the desired one; an unfinished one before it is superseded."""
    before = deployment.revisions
    if deployment.desired_revision and deployment.desired.outcome is RevisionOutcome.IN_PROGRESS:
        gone = replace(deployment.desired, outcome=RevisionOutcome.SUPERSEDED)
        before = with_revision(before, gone)
    wished = replace(
        deployment,
        state=DeploymentState.PENDING,
        failure=None,
        desired_revision=revision.number,
        last_revision=revision.number,
        revisions=with_revision(before, revision),
        progress=Progress(),
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
        if known is not None and 0 < known.wanted_replica_count != variant.wanted_replica_count > 0:
            entries.append(_scaled(known, variant))
    return Step(replace(deployment, report=report), tuple(entries))


def _scaled(before: VariantReport, variant: VariantReport) -> JournalEntry:
    message = f"from {before.wanted_replica_count} to {variant.wanted_replica_count} model servers"
    why = variant.scaling or "they were started anew"
    return JournalEntry(EventType.SCALED, variant.revision, f"{message}: {why}")


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


def next_step(
    deployment: Deployment, *, now: datetime, since: datetime, progress_seconds: float
) -> Step | None:
    """Return the next step, or None while there is nothing to do but wait.

    Args:
        deployment: all that is stored, the newest report included.
        now: the present.
        since: since when this replica looks after it: time before does not count as waited.
        progress_seconds: when a rollout without progress is given up, unless its plan says.
    """
    step = beside.next_step(deployment, now)
    if step is not None:
        return step
    if _unfinished(deployment):
        if deployment.desired.cause is RevisionCause.UNDEPLOY:
            return _stop(deployment, now)
        wait = timedelta(seconds=deployment.desired.plan.progress_seconds or progress_seconds)
        step = _roll_out(deployment, now=now, since=since, wait=wait)
        return step or _remove_drained(deployment)
    return _remove_drained(deployment)


def is_settled(deployment: Deployment) -> bool:
    """Say whether nothing is left to be done or waited for."""
    in_force = confirmed(deployment) and deployment.report.weights_applied
    return (
        (not deployment.desired_revision or not _unfinished(deployment))
        and all(r.running and not beside.broken(deployment, r) for r in deployment.beside.values())
        and (in_force or deployment.assignment.generation == 0)
        and not gone(deployment)
        and deployment.uses == versions_in_use(deployment)
        and all(deployment.assignment.weight(r.key) is not None for r in running(deployment))
    )


def only_counted(before: Deployment, after: Deployment) -> bool:
    """Say whether nothing but what was counted changed: that is often, and nobody's wish."""
    return replace(before, report=_uncounted(before.report)) == replace(
        after, report=_uncounted(after.report)
    )


def versions_in_use(deployment: Deployment) -> frozenset[str]:
    """Return the versions that run or are about to: metadata must have their use on record."""
    wanted = {revision.version for revision in running(deployment)}
    if deployment.desired_revision and _unfinished(deployment):
        wanted.add(deployment.desired.version)
    wanted |= {revision.version for revision in deployment.beside.values()}
    return frozenset(wanted - {""})


def go_on(deployment: Deployment, *, actor: str, reason: str) -> Step | None:
    """Let a rollout leave its manual step; None when it is in none."""
    if not (_unfinished(deployment) and stepping.is_manual(deployment)):
        return None
    progress = replace(deployment.progress, continued=True)
    message = reason or "it may go on"
    entry = JournalEntry(EventType.CONTINUE_REQUESTED, deployment.desired_revision, message, actor)
    return Step(replace(deployment, progress=progress), (entry,))


def abort(deployment: Deployment, *, actor: str, reason: str, now: datetime) -> Step | None:
    """Give an unfinished rollout up on somebody's wish; None when there is none."""
    if not _unfinished(deployment) or deployment.desired.cause is RevisionCause.UNDEPLOY:
        return None
    number, message = deployment.desired_revision, reason or "it is to be given up"
    why = f"given up by {actor}" + (f": {reason}" if reason else "")
    failed = fail(deployment, Failure("ABORTED", why), now=now)
    entry = JournalEntry(EventType.ABORT_REQUESTED, number, message, actor)
    return Step(failed.deployment, (entry, *failed.entries))


def fail(deployment: Deployment, failure: Failure, *, now: datetime) -> Step:
    """Give the desired revision up: what was live stays live, or becomes it again."""
    revision = replace(deployment.desired, outcome=RevisionOutcome.FAILED, failure=failure)
    failed = replace(
        deployment,
        state=DeploymentState.FAILED,
        failure=failure,
        revisions=with_revision(deployment.revisions, revision),
        progress=Progress(),
        update_time=now,
    )
    if deployment.assignment.generation:
        failed = assign(failed, shared((deployment.live, EVERYTHING)), now)
    return Step(failed, (JournalEntry(EventType.FAILED, revision.number, failure.message),))


def _uncounted(report: Report) -> Report:
    return replace(report, variants=tuple(replace(v, traffic=None) for v in report.variants))


def _unfinished(deployment: Deployment) -> bool:
    return deployment.desired.outcome is RevisionOutcome.IN_PROGRESS


def _roll_out(
    deployment: Deployment, *, now: datetime, since: datetime, wait: timedelta
) -> Step | None:
    if deployment.progress.step == 0 and not _is_begun(deployment):
        recorded = deployment.desired.version in deployment.uses
        return _begin(deployment, now) if recorded else None
    waited = now - max(deployment.assignment.time or now, since)
    step = _follow(deployment, now, since, wait) if confirmed(deployment) else None
    if step is None and waited >= wait and not stepping.in_force(deployment):
        return fail(deployment, _timeout(deployment, waited), now=now)
    return step


def _is_begun(deployment: Deployment) -> bool:
    """Say whether the desired revision's own assignment was made."""
    return deployment.desired.running


def _follow(deployment: Deployment, now: datetime, since: datetime, wait: timedelta) -> Step | None:
    """Go on as the controller's report about the present assignment allows."""
    desired = deployment.desired
    status = deployment.report.variant(desired.key)
    if status is None:
        return None
    if status.state is VariantState.FAILED:
        unknown = Failure("CRASHED", "its controller did not say why")
        return fail(deployment, status.failure or unknown, now=now)
    if deployment.progress.step == 0:
        return _shift(deployment, now) if status.state is VariantState.READY else None
    return _advance(deployment, now, since, wait) if deployment.report.weights_applied else None


def _advance(
    deployment: Deployment, now: datetime, since: datetime, wait: timedelta
) -> Step | None:
    """Go on from a step whose shares are in force."""
    if stepping.is_last(deployment):
        return _go_live(deployment, now)
    if not stepping.in_force(deployment):
        return _enter_step(deployment, now)
    return _leave_step(deployment, now, since, wait)


def _begin(deployment: Deployment, now: datetime) -> Step:
    shares = shared((deployment.live, EVERYTHING), (deployment.desired, 0))
    rolling_back = deployment.desired.cause is RevisionCause.ROLLBACK
    state = DeploymentState.ROLLING_BACK if rolling_back else DeploymentState.ROLLING_OUT
    return Step(replace(assign(deployment, shares, now), state=state))


def _shift(deployment: Deployment, now: datetime) -> Step:
    """Assign the shares of the next step."""
    number = deployment.progress.step + 1
    weight = stepping.weight(deployment, number)
    shares = shared((deployment.live, EVERYTHING - weight), (deployment.desired, weight))
    shifted = assign(deployment, shares, now)
    return Step(replace(shifted, progress=Progress(step=number)))


def _enter_step(deployment: Deployment, now: datetime) -> Step:
    """Take note that a step's shares are in force, and what had been counted by then."""
    entered = stepping.enter(deployment, now)
    number, weight = entered.progress.step, stepping.weight(deployment, entered.progress.step)
    message = f"step {number}: it gets {weight} % of the requests"
    if stepping.is_manual(entered):
        message += ", until somebody says to go on"
    entry = JournalEntry(EventType.STEP_STARTED, deployment.desired_revision, message)
    return Step(entered, (entry,))


def _leave_step(
    deployment: Deployment, now: datetime, since: datetime, wait: timedelta
) -> Step | None:
    """Go on to the next step, give up, or wait."""
    verdict = stepping.judge(deployment, now, since, wait)
    if verdict is None:
        return None
    if verdict.failure is not None:
        return fail(deployment, verdict.failure, now=now)
    if verdict.baseline is not None:
        return Step(verdict.baseline)
    step = _shift(deployment, now)
    if not verdict.passed:
        return step
    entry = JournalEntry(EventType.ANALYSIS_PASSED, deployment.desired_revision, verdict.passed)
    return replace(step, entries=(entry,))


def _go_live(deployment: Deployment, now: datetime) -> Step:
    desired, old = deployment.desired, deployment.live
    lived = replace(desired, outcome=RevisionOutcome.LIVE, live_time=now)
    changed = replace(
        deployment,
        state=DeploymentState.LIVE,
        live_revision=desired.number,
        warm_revision=old.number if old and desired.plan.keep_previous_warm else 0,
        revisions=with_revision(deployment.revisions, lived),
        progress=Progress(),
    )
    entries = [
        JournalEntry(EventType.TRAFFIC_SHIFTED, desired.number, "it gets all requests"),
        JournalEntry(EventType.LIVE, desired.number, f"{desired.version} is live"),
    ]
    if old is not None:
        replaced = replace(changed.revision(old.number), outcome=RevisionOutcome.REPLACED)
        changed = replace(changed, revisions=with_revision(changed.revisions, replaced))
        if old.key != desired.key and not changed.warm_revision:
            message = f"{old.version} finishes its requests"
            entries.append(JournalEntry(EventType.DRAINING, old.number, message))
    return Step(assign(changed, shared((desired, EVERYTHING)), now), tuple(entries))


def _stop(deployment: Deployment, now: datetime) -> Step | None:
    if deployment.assignment.variants:
        return Step(_withdraw(deployment, now))
    if running(deployment):
        return _remove_drained(deployment)
    done = replace(deployment.desired, outcome=RevisionOutcome.LIVE, live_time=now)
    stopped = replace(
        deployment,
        state=DeploymentState.STOPPED,
        revisions=with_revision(deployment.revisions, done),
        update_time=now,
    )
    number = deployment.desired_revision
    return Step(stopped, (JournalEntry(EventType.STOPPED, number, "nothing is served"),))


def _withdraw(deployment: Deployment, now: datetime) -> Deployment:
    """Assign nothing. Nothing is live from here on: a newer wish must not count on it."""
    revisions = deployment.revisions
    if deployment.live is not None:
        replaced = replace(deployment.live, outcome=RevisionOutcome.REPLACED)
        revisions = with_revision(revisions, replaced)
    for revision in deployment.beside.values():
        ended = replace(revision, outcome=RevisionOutcome.ENDED)
        revisions = with_revision(revisions, ended)
    withdrawn = withdraw(replace(deployment, revisions=revisions, live_revision=0), now)
    return replace(withdrawn, state=DeploymentState.ROLLING_OUT)


def _remove_drained(deployment: Deployment) -> Step | None:
    drained = gone(deployment)
    if not drained:
        return None
    revisions, entries = deployment.revisions, []
    for revision in drained:
        revisions = with_revision(revisions, replace(revision, running=False))
        message = f"{revision.version} is gone"
        entries.append(JournalEntry(EventType.DRAINED, revision.number, message))
    return Step(replace(deployment, revisions=revisions), tuple(entries))


def _timeout(deployment: Deployment, waited: timedelta) -> Failure:
    seconds = round(waited.total_seconds())
    if deployment.progress.step == 0:
        return Failure("NEVER_READY", f"it was not ready within {seconds} seconds")
    return Failure("TIMEOUT", f"the requests were not shifted within {seconds} seconds")
