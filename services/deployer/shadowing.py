"""Shadows: a version that gets copies of the live one's requests, beside any rollout."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.deployer.assigning import assign, confirmed, with_revision
from services.deployer.domain import (
    Deployment,
    EventType,
    Failure,
    JournalEntry,
    Revision,
    RevisionOutcome,
    Step,
    VariantState,
)


def wish(deployment: Deployment, revision: Revision, now: datetime) -> Step:
    """Make a revision the shadow; another one ends."""
    ended = end(deployment, now, actor=revision.actor) if deployment.shadow else Step(deployment)
    wished = replace(
        ended.deployment,
        shadow_revision=revision.number,
        last_revision=revision.number,
        revisions=with_revision(ended.deployment.revisions, revision),
        update_time=now,
    )
    message = f"{revision.version} is to get copies of {revision.mirror_percent} % of the requests"
    kind = EventType.SHADOW_REQUESTED
    entry = JournalEntry(kind, revision.number, message, revision.actor)
    return Step(wished, (*ended.entries, entry))


def end(
    deployment: Deployment,
    now: datetime,
    *,
    actor: str = "",
    failure: Failure | None = None,
) -> Step:
    """End the shadow there is; its variant is drained and removed."""
    shadow = deployment.revision(deployment.shadow_revision)
    outcome = RevisionOutcome.FAILED if failure else RevisionOutcome.ENDED
    ended = replace(shadow, outcome=outcome, failure=failure)
    shares = deployment.assignment.weights
    shares.pop(shadow.key, None)
    without = replace(
        deployment,
        shadow_revision=0,
        revisions=with_revision(deployment.revisions, ended),
        update_time=now,
    )
    if shadow.running:
        without = assign(without, shares, now)
    message = failure.message if failure else f"{shadow.version} gets no more copies"
    entry = JournalEntry(EventType.SHADOW_ENDED, shadow.number, message, actor)
    return Step(without, (entry,))


def next_step(deployment: Deployment, now: datetime) -> Step | None:
    """Assign a shadow whose use is on record; end one that failed."""
    shadow = deployment.shadow
    if shadow is None:
        return None
    if not shadow.running:
        recorded = shadow.version in deployment.uses and deployment.live is not None
        shares = deployment.assignment.weights
        return Step(assign(deployment, shares, now)) if recorded else None
    status = deployment.report.variant(shadow.key) if confirmed(deployment) else None
    if status is not None and status.state is VariantState.FAILED:
        unknown = Failure("CRASHED", "its controller did not say why")
        return end(deployment, now, failure=status.failure or unknown)
    return None
