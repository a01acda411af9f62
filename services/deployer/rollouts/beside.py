"""What runs beside the live version and any rollout: a shadow, and a preview.

A shadow gets copies of the live version's requests and its answers are dropped; a
preview answers the requests with its header, and no others. Neither ever has a share.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.deployer.domain import (
    Deployment,
    EventType,
    Failure,
    JournalEntry,
    Revision,
    RevisionCause,
    RevisionOutcome,
    Step,
    VariantReport,
    VariantState,
)
from services.deployer.rollouts.assigning import assign, confirmed, with_revision

_REQUESTED = {
    RevisionCause.SHADOW: EventType.SHADOW_REQUESTED,
    RevisionCause.PREVIEW: EventType.PREVIEW_REQUESTED,
}
_ENDED = {
    RevisionCause.SHADOW: EventType.SHADOW_ENDED,
    RevisionCause.PREVIEW: EventType.PREVIEW_ENDED,
}


def wish(deployment: Deployment, revision: Revision, now: datetime) -> Step:
    """Make a revision the shadow or the preview; another one in its place ends."""
    before = deployment.beside.get(revision.cause)
    ended = end(deployment, before, now, actor=revision.actor) if before else Step(deployment)
    wished = replace(
        _placed(ended.deployment, revision.cause, revision.number),
        last_revision=revision.number,
        revisions=with_revision(ended.deployment.revisions, revision),
        update_time=now,
    )
    message = f"{revision.version} is to get {_what_it_gets(revision)}"
    kind = _REQUESTED[revision.cause]
    entry = JournalEntry(kind, revision.number, message, revision.actor)
    return Step(wished, (*ended.entries, entry))


def end(
    deployment: Deployment,
    revision: Revision,
    now: datetime,
    *,
    actor: str = "",
    failure: Failure | None = None,
) -> Step:
    """End a shadow or preview; its variant is drained and removed."""
    outcome = RevisionOutcome.FAILED if failure else RevisionOutcome.ENDED
    ended = replace(revision, outcome=outcome, failure=failure)
    shares = deployment.assignment.weights
    shares.pop(revision.key, None)
    without = replace(
        _placed(deployment, revision.cause, 0),
        revisions=with_revision(deployment.revisions, ended),
        update_time=now,
    )
    if revision.running:
        without = assign(without, shares, now)
    message = failure.message if failure else f"{revision.version} gets {_what_ended(revision)}"
    entry = JournalEntry(_ENDED[revision.cause], revision.number, message, actor)
    return Step(without, (entry,))


def next_step(deployment: Deployment, now: datetime) -> Step | None:
    """Assign what is to run beside and whose use is on record; end what failed."""
    steps = (_next_step(deployment, found, now) for found in deployment.beside.values())
    return next((step for step in steps if step is not None), None)


def _next_step(deployment: Deployment, revision: Revision, now: datetime) -> Step | None:
    if not revision.running:
        recorded = revision.version in deployment.uses and deployment.live is not None
        shares = deployment.assignment.weights
        return Step(assign(deployment, shares, now)) if recorded else None
    status = broken(deployment, revision)
    if status is None:
        return None
    unknown = Failure("CRASHED", "its controller did not say why")
    return end(deployment, revision, now, failure=status.failure or unknown)


def broken(deployment: Deployment, revision: Revision) -> VariantReport | None:
    """Return what is reported of a variant that could not be started, or died; None of others."""
    status = deployment.report.variant(revision.key) if confirmed(deployment) else None
    return status if status is not None and status.state is VariantState.FAILED else None


def _placed(deployment: Deployment, cause: RevisionCause, number: int) -> Deployment:
    if cause is RevisionCause.SHADOW:
        return replace(deployment, shadow_revision=number)
    return replace(deployment, preview_revision=number)


def _what_it_gets(revision: Revision) -> str:
    if revision.header_match is None:
        return f"copies of {revision.mirror_percent} % of the requests"
    return f"the requests with {revision.header_match}"


def _what_ended(revision: Revision) -> str:
    return "no more copies" if revision.header_match is None else "no more requests"
