"""Queries of deployments and their revisions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.names import DeploymentName, EnvironmentName
from services.deployer.domain import (
    Assignment,
    Deployment,
    DeploymentState,
    Failure,
    Progress,
    Report,
    Revision,
    RevisionCause,
    RevisionOutcome,
    Verdict,
)
from services.deployer.rollouts.plans import HeaderMatch, RolloutPlan, ServingSpec
from services.deployer.store.crossings import list_uses
from services.deployer.store.environments import external_ones
from services.deployer.store.tables import DEPLOYMENTS, REVISIONS, insert


def claim_deployment(connection: Connection, name: DeploymentName, now: datetime) -> Deployment:
    """Return a deployment, locked until the transaction ends; created when it is not there."""
    blank = Deployment(
        name=name,
        state=DeploymentState.PENDING,
        failure=None,
        desired_revision=0,
        live_revision=0,
        assignment=Assignment(),
        report=Report(),
        revisions=(),
        create_time=now,
        update_time=now,
    )
    row = _deployment_row(blank) | {
        "name": str(name),
        "project": name.project,
        "environment": name.environment,
        "create_time": now,
        "settled": True,
        "lease_holder": "",
        "lease_epoch": 0,
    }
    statement = insert(connection, DEPLOYMENTS).values(row).on_conflict_do_nothing()
    connection.execute(statement)
    return find_deployment(connection, name, lock=True) or blank


def find_deployment(
    connection: Connection, name: DeploymentName, *, lock: bool = False
) -> Deployment | None:
    """Return a deployment with the revisions that matter now, if it exists."""
    query = sa.select(DEPLOYMENTS).where(DEPLOYMENTS.c.name == str(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _deployment(connection, row)


def save_deployment(
    connection: Connection, before: Deployment, deployment: Deployment, *, settled: bool
) -> None:
    """Write a deployment, and those of its revisions that are not as before."""
    name = str(deployment.name)
    connection.execute(
        DEPLOYMENTS.update()
        .where(DEPLOYMENTS.c.name == name)
        .values(**_deployment_row(deployment), settled=settled)
    )
    for revision in deployment.revisions:
        if revision in before.revisions:
            continue
        row = _revision_row(revision) | {"deployment": name}
        statement = insert(connection, REVISIONS).values(row)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["deployment", "number"],
                set_={key: row[key] for key in ("outcome", "failure", "running", "live_time")},
            )
        )


def list_deployments(
    connection: Connection, parent: EnvironmentName, *, after: str, limit: int
) -> list[Deployment]:
    """Return the deployments of an environment, or of all, by name, after one."""
    query = (
        sa.select(DEPLOYMENTS)
        .where(*_within(parent), DEPLOYMENTS.c.name > after, DEPLOYMENTS.c.desired_revision > 0)
        .order_by(DEPLOYMENTS.c.name)
        .limit(limit)
    )
    return [_deployment(connection, row) for row in connection.execute(query).all()]


def unsettled(connection: Connection) -> list[DeploymentName]:
    """Name the deployments in which something is to be done or waited for."""
    query = sa.select(DEPLOYMENTS.c.name).where(DEPLOYMENTS.c.settled.is_(sa.false()))
    return [DeploymentName.parse(name) for name in connection.execute(query).scalars()]


def list_assigned(
    connection: Connection, parent: EnvironmentName
) -> list[tuple[DeploymentName, Assignment]]:
    """Return every present assignment in an environment; `-` stands for all."""
    query = (
        sa.select(DEPLOYMENTS.c.name, DEPLOYMENTS.c.assignment)
        .where(*_within(parent), DEPLOYMENTS.c.generation > 0)
        .order_by(DEPLOYMENTS.c.name)
    )
    rows = connection.execute(query).all()
    return [(DeploymentName.parse(row.name), _assignment(row.assignment)) for row in rows]


def find_assignments(
    connection: Connection, names: Iterable[str]
) -> list[tuple[DeploymentName, Assignment]]:
    """Return the present assignments of some deployments."""
    query = (
        sa.select(DEPLOYMENTS.c.name, DEPLOYMENTS.c.assignment)
        .where(DEPLOYMENTS.c.name.in_(sorted(names)), DEPLOYMENTS.c.generation > 0)
        .order_by(DEPLOYMENTS.c.name)
    )
    rows = connection.execute(query).all()
    return [(DeploymentName.parse(row.name), _assignment(row.assignment)) for row in rows]


def find_revision(connection: Connection, name: DeploymentName, number: int) -> Revision | None:
    """Return any revision of a deployment, if it exists."""
    query = _revisions_of(name).where(REVISIONS.c.number == number)
    row = connection.execute(query).first()
    return None if row is None else _revision(row)


def save_sample(connection: Connection, name: DeploymentName, number: int, sample: str) -> None:
    """Note the newest dataset version of what a variant answered, with all who have it."""
    connection.execute(
        REVISIONS.update()
        .where(
            REVISIONS.c.deployment == str(name),
            sa.or_(REVISIONS.c.number == number, REVISIONS.c.variant == number),
        )
        .values(sample=sample)
    )


def list_revisions(
    connection: Connection, name: DeploymentName, *, before: int | None, limit: int
) -> list[Revision]:
    """Return a deployment's revisions, newest first, before one."""
    query = _revisions_of(name).order_by(REVISIONS.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(REVISIONS.c.number < before)
    return [_revision(row) for row in connection.execute(query)]


def find_last_live(
    connection: Connection, name: DeploymentName, *, other_than: int
) -> Revision | None:
    """Return the revision with a version that went live last, but for one."""
    query = (
        _revisions_of(name)
        .where(
            REVISIONS.c.live_time.is_not(None),
            REVISIONS.c.version != "",
            REVISIONS.c.number != other_than,
        )
        .order_by(REVISIONS.c.live_time.desc(), REVISIONS.c.number.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _revision(row)


def without_external(
    connection: Connection, assigned: list[tuple[DeploymentName, Assignment]]
) -> list[tuple[DeploymentName, Assignment]]:
    """Leave out what controllers that are not ours carry out."""
    external = external_ones(connection, {name.parent for name, _ in assigned})
    return [(name, found) for name, found in assigned if name.parent not in external]


def _within(parent: EnvironmentName) -> list[sa.ColumnElement[bool]]:
    clauses = []
    if parent.project != "-":
        clauses.append(DEPLOYMENTS.c.project == parent.project)
    if parent.environment != "-":
        clauses.append(DEPLOYMENTS.c.environment == parent.environment)
    return clauses


def _revisions_of(name: DeploymentName) -> sa.Select[Any]:
    return sa.select(REVISIONS).where(REVISIONS.c.deployment == str(name))


def _deployment_row(deployment: Deployment) -> dict[str, Any]:
    return {
        "state": deployment.state.value,
        "failure": _packed(deployment.failure),
        "desired_revision": deployment.desired_revision,
        "live_revision": deployment.live_revision,
        "last_revision": deployment.last_revision,
        "shadow_revision": deployment.shadow_revision,
        "preview_revision": deployment.preview_revision,
        "warm_revision": deployment.warm_revision,
        "progress": msgspec.msgpack.encode(deployment.progress),
        "assignment": msgspec.msgpack.encode(deployment.assignment),
        "generation": deployment.assignment.generation,
        "report": msgspec.msgpack.encode(deployment.report),
        "update_time": deployment.update_time,
    }


def _deployment(connection: Connection, row: Any) -> Deployment:
    name = DeploymentName.parse(row.name)
    numbers = (
        row.desired_revision,
        row.live_revision,
        row.shadow_revision,
        row.preview_revision,
        row.warm_revision,
    )
    query = _revisions_of(name).where(
        sa.or_(REVISIONS.c.running.is_(sa.true()), REVISIONS.c.number.in_(numbers))
    )
    revisions = connection.execute(query.order_by(REVISIONS.c.number)).all()
    return Deployment(
        name=name,
        state=DeploymentState(row.state),
        failure=_failure(row.failure),
        desired_revision=row.desired_revision,
        live_revision=row.live_revision,
        assignment=_assignment(row.assignment),
        report=msgspec.msgpack.decode(row.report, type=Report),
        revisions=tuple(_revision(revision) for revision in revisions),
        create_time=row.create_time,
        update_time=row.update_time,
        uses=frozenset(v for v, recorded in list_uses(connection, name).items() if recorded),
        last_revision=row.last_revision,
        shadow_revision=row.shadow_revision,
        preview_revision=row.preview_revision,
        warm_revision=row.warm_revision,
        progress=msgspec.msgpack.decode(row.progress, type=Progress),
    )


def _revision_row(revision: Revision) -> dict[str, Any]:
    return {
        "number": revision.number,
        "version": revision.version,
        "artifact": revision.artifact,
        "environment_digest": revision.environment_digest,
        "actor": revision.actor,
        "reason": revision.reason,
        "cause": revision.cause.value,
        "verdicts": msgspec.msgpack.encode(revision.verdicts),
        "outcome": revision.outcome.value,
        "failure": _packed(revision.failure),
        "restored_revision": revision.restored_revision,
        "plan": msgspec.msgpack.encode(revision.plan),
        "serving": msgspec.msgpack.encode(revision.serving),
        "mirror_percent": revision.mirror_percent,
        "header_match": _packed(revision.header_match),
        "sample": revision.sample,
        "variant": revision.variant,
        "running": revision.running,
        "trace_parent": revision.trace_parent,
        "create_time": revision.create_time,
        "live_time": revision.live_time,
    }


def _revision(row: Any) -> Revision:
    return Revision(
        number=row.number,
        version=row.version,
        artifact=row.artifact,
        environment_digest=row.environment_digest,
        actor=row.actor,
        reason=row.reason,
        cause=RevisionCause(row.cause),
        create_time=row.create_time,
        verdicts=msgspec.msgpack.decode(row.verdicts, type=tuple[Verdict, ...]),
        outcome=RevisionOutcome(row.outcome),
        failure=_failure(row.failure),
        live_time=row.live_time,
        restored_revision=row.restored_revision,
        running=row.running,
        trace_parent=row.trace_parent,
        plan=msgspec.msgpack.decode(row.plan, type=RolloutPlan),
        serving=msgspec.msgpack.decode(row.serving, type=ServingSpec),
        mirror_percent=row.mirror_percent,
        header_match=_header_match(row.header_match),
        sample=row.sample,
        variant=row.variant,
    )


def _assignment(packed: bytes) -> Assignment:
    return msgspec.msgpack.decode(packed, type=Assignment)


def _packed(value: Failure | HeaderMatch | None) -> bytes | None:
    return None if value is None else msgspec.msgpack.encode(value)


def _header_match(packed: bytes | None) -> HeaderMatch | None:
    return None if packed is None else msgspec.msgpack.decode(packed, type=HeaderMatch)


def _failure(packed: bytes | None) -> Failure | None:
    return None if packed is None else msgspec.msgpack.decode(packed, type=Failure)
