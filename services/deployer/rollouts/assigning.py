"""What should run for a deployment, as the next assignment: pure functions on a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from services.deployer.domain import (
    AssignedVariant,
    Assignment,
    Deployment,
    Revision,
    VariantState,
)

Shares = Mapping[int, int]
"""The share of the requests in percent, by a variant's key."""


def assign(deployment: Deployment, shares: Shares, now: datetime) -> Deployment:
    """Assign variants with their shares, and those that run beside or are kept warm without one."""
    chosen = _chosen(deployment, shares)
    assignment = Assignment(
        generation=deployment.assignment.generation + 1,
        variants=tuple(_variant(r, shares.get(key, 0)) for key, r in sorted(chosen.items())),
        trace_parent=deployment.desired.trace_parent,
        time=now,
    )
    revisions = deployment.revisions
    for revision in chosen.values():
        revisions = with_revision(revisions, replace(revision, running=True))
    return replace(deployment, assignment=assignment, revisions=revisions, update_time=now)


def withdraw(deployment: Deployment, now: datetime) -> Deployment:
    """Assign nothing at all."""
    blank = replace(deployment, shadow_revision=0, preview_revision=0, warm_revision=0)
    return assign(blank, {}, now)


def shared(*parts: tuple[Revision | None, int]) -> dict[int, int]:
    """Return the shares of some revisions; two that have one variant add up."""
    shares: dict[int, int] = {}
    for revision, weight in parts:
        if revision is not None:
            shares[revision.key] = shares.get(revision.key, 0) + weight
    return shares


def running(deployment: Deployment) -> list[Revision]:
    """Return the revisions whose variants run, as far as is known."""
    return [revision for revision in deployment.revisions if revision.running]


def confirmed(deployment: Deployment) -> bool:
    """Say whether the controller speaks of the present assignment."""
    return 0 < deployment.report.generation == deployment.assignment.generation


def gone(deployment: Deployment) -> list[Revision]:
    """Find what runs no more, as the controller of the present assignment says."""
    if not confirmed(deployment):
        return []
    return [
        revision
        for revision in running(deployment)
        if deployment.assignment.weight(revision.key) is None
        and deployment.report.variant(revision.key) is None
    ]


def running_variant(deployment: Deployment, revision: Revision) -> int:
    """Return the variant of a revision that may be taken up again as it runs; 0: there is none.

    One that died without requests is not brought back, so nothing can go back to it.
    """
    status = deployment.report.variant(revision.key)
    failed = status is not None and status.state is VariantState.FAILED
    assigned = deployment.assignment.weight(revision.key) is not None
    return revision.key if assigned and not failed else 0


def with_revision(revisions: Sequence[Revision], changed: Revision) -> tuple[Revision, ...]:
    """Put a revision in its place."""
    kept = [revision for revision in revisions if revision.number != changed.number]
    return tuple(sorted([*kept, changed], key=lambda revision: revision.number))


def _chosen(deployment: Deployment, shares: Shares) -> dict[int, Revision]:
    """Return a revision for each variant that should run; of several the newest."""
    beside = shared((deployment.warm, 0), *((r, 0) for r in deployment.beside.values()))
    wanted = shares.keys() | beside.keys()
    return {r.key: r for r in deployment.revisions if r.key in wanted and r.version}


def _variant(revision: Revision, weight: int) -> AssignedVariant:
    return AssignedVariant(
        revision=revision.key,
        version=revision.version,
        artifact=revision.artifact,
        weight=weight,
        environment_digest=revision.environment_digest,
        mirror_percent=revision.mirror_percent,
        serving=revision.serving,
        header_match=revision.header_match,
    )
