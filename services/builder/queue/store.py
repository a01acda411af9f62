"""The queue's tables and queries, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from services.builder.domain import LEASED, Build, BuildState
from services.builder.queue.domain import (
    KEPT,
    Ask,
    Defaults,
    Scope,
    Situation,
    Standing,
    Worker,
)
from services.builder.spec import Resources
from services.builder.store import BUILDS, METADATA, build_of
from services.common.names import BuildName
from services.common.sql.database import Timestamp

MAX_LISTED = 1_000
# Any number of our own: PostgreSQL's advisory locks are named by numbers.
_TAKING = 0x6D6F_6465_6C79

LIMITS = sa.Table(
    "build_limits",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    # Empty: the limit of the project as a whole.
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("max_running", sa.Integer, nullable=False),
)
WORKERS = sa.Table(
    "workers",
    METADATA,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("max_builds", sa.Integer, nullable=False),
    sa.Column("cpu_cores", sa.Double, nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("disk_bytes", sa.BigInteger, nullable=False),
    sa.Column("start_time", Timestamp, nullable=False),
    sa.Column("sign_time", Timestamp, nullable=False),
)


def anything_queued(connection: Connection, pool: str) -> bool:
    """Say whether a pool's queue holds anything at all: a cheap look before a dear one."""
    query = sa.select(sa.literal(1)).where(
        BUILDS.c.state == BuildState.QUEUED, BUILDS.c.pool == pool
    )
    return connection.execute(query.limit(1)).first() is not None


def take_next(connection: Connection, ask: Ask, defaults: Defaults, now: datetime) -> Build | None:
    """Return the build that a worker gets next, locked until the transaction ends.

    Takers come one after the other: what one takes counts for the next one's limits.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TAKING)))
    in_project = _running("in_project", BUILDS.c.project)
    in_model = _running("in_model", BUILDS.c.project, BUILDS.c.model)
    of_project, of_model = LIMITS.alias("of_project"), LIMITS.alias("of_model")
    running = sa.func.coalesce(in_project.c.running, 0)
    query = (
        sa.select(BUILDS)
        .outerjoin(in_project, in_project.c.project == BUILDS.c.project)
        .outerjoin(
            in_model,
            sa.and_(in_model.c.project == BUILDS.c.project, in_model.c.model == BUILDS.c.model),
        )
        .outerjoin(of_project, _limit_of(of_project, sa.literal("")))
        .outerjoin(of_model, _limit_of(of_model, BUILDS.c.model))
        .where(
            BUILDS.c.state == BuildState.QUEUED,
            BUILDS.c.pool == ask.pool,
            sa.or_(BUILDS.c.retry_time.is_(None), BUILDS.c.retry_time <= now),
            _below(running, of_project, defaults.project),
            _below(sa.func.coalesce(in_model.c.running, 0), of_model, defaults.model),
            *_fitting(ask.free),
        )
        # Among equals the project that has the least running comes first.
        .order_by(BUILDS.c.priority.desc(), running, BUILDS.c.create_time, BUILDS.c.build)
        .limit(1)
        .with_for_update(skip_locked=True, of=BUILDS)
    )
    row = connection.execute(query).first()
    return None if row is None else build_of(row)


def set_limit(connection: Connection, scope: Scope, maximum: int | None) -> None:
    """Set a scope's own limit; None: it has none any more."""
    if maximum is None:
        own = sa.and_(LIMITS.c.project == scope.project, LIMITS.c.model == scope.model)
        connection.execute(LIMITS.delete().where(own))
        return
    values = {"project": scope.project, "model": scope.model, "max_running": maximum}
    insert = _insert(connection, LIMITS).values(**values)
    update = insert.on_conflict_do_update(
        index_elements=["project", "model"], set_={"max_running": maximum}
    )
    connection.execute(update)


def standing(connection: Connection, scope: Scope, defaults: Defaults) -> Standing:
    """Return a scope's limits and how it stands with them."""
    own = _limits(connection).get(scope)
    within = [BUILDS.c.project == scope.project]
    within += [BUILDS.c.model == scope.model] if scope.model else []
    queued = sa.func.count().filter(BUILDS.c.state == BuildState.QUEUED)
    running = sa.func.count().filter(BUILDS.c.state.in_(LEASED))
    active = BUILDS.c.state.in_((BuildState.QUEUED, *LEASED))
    row = connection.execute(sa.select(running, queued).where(active, *within)).one()
    effective = own if own is not None else defaults.of(scope)
    return Standing(scope, own, effective, *row)


def situation(
    connection: Connection, defaults: Defaults, now: datetime, *, alive: timedelta
) -> Situation:
    """Return all that decides about waiting builds now."""
    running: dict[Scope, int] = {}
    query = sa.select(BUILDS.c.project, BUILDS.c.model, sa.func.count())
    leased = query.where(BUILDS.c.state.in_(LEASED)).group_by(BUILDS.c.project, BUILDS.c.model)
    for project, model, count in connection.execute(leased):
        for scope in (Scope(project), Scope(project, model)):
            running[scope] = running.get(scope, 0) + count
    workers = heard_of(connection, since=now - alive)
    return Situation(now, running, _limits(connection), defaults, workers)


def note_worker(connection: Connection, ask: Ask, now: datetime) -> None:
    """Keep what a worker says of itself, and that it was heard of."""
    told = {
        "pool": ask.pool,
        "max_builds": ask.max_builds,
        "cpu_cores": ask.total.cpu_cores,
        "memory_bytes": ask.total.memory_bytes,
        "disk_bytes": ask.total.disk_bytes,
        "sign_time": now,
    }
    insert = _insert(connection, WORKERS).values(worker=ask.worker, start_time=now, **told)
    connection.execute(insert.on_conflict_do_update(index_elements=["worker"], set_=told))


def note_sign(connection: Connection, worker: str, now: datetime) -> None:
    """Keep that a worker was heard of."""
    connection.execute(WORKERS.update().where(WORKERS.c.worker == worker).values(sign_time=now))


def heard_of(connection: Connection, *, since: datetime, pool: str = "") -> list[Worker]:
    """Return the workers that were heard of since a moment, and what they run."""
    query = sa.select(WORKERS).where(WORKERS.c.sign_time >= since)
    query = query.where(WORKERS.c.pool == pool) if pool else query
    rows = connection.execute(query.order_by(WORKERS.c.pool, WORKERS.c.worker).limit(MAX_LISTED))
    return [_worker(row) for row in rows]


def builds_by_worker(connection: Connection) -> dict[str, list[str]]:
    """Return the names of the builds that each worker has."""
    query = sa.select(BUILDS.c.worker, BUILDS.c.project, BUILDS.c.build)
    found: dict[str, list[str]] = {}
    leased = query.where(BUILDS.c.state.in_(LEASED)).order_by(BUILDS.c.start_time)
    for worker, project, build in connection.execute(leased):
        found.setdefault(worker, []).append(str(BuildName(project, build)))
    return found


def forget_workers(connection: Connection, now: datetime) -> None:
    """Forget the workers that were lost long ago."""
    connection.execute(WORKERS.delete().where(WORKERS.c.sign_time < now - KEPT))


def _running(name: str, *by: sa.Column[str]) -> sa.Subquery:
    query = sa.select(*by, sa.func.count().label("running")).where(BUILDS.c.state.in_(LEASED))
    return query.group_by(*by).subquery(name)


def _limit_of(limits: Any, model: Any) -> sa.ColumnElement[bool]:
    return sa.and_(limits.c.project == BUILDS.c.project, limits.c.model == model)


def _below(running: Any, limits: Any, default: int) -> sa.ColumnElement[bool]:
    """Say that one more may run; a default of 0 is none."""
    if default:
        return sa.and_(running < sa.func.coalesce(limits.c.max_running, default))
    return sa.or_(limits.c.max_running.is_(None), running < limits.c.max_running)


def _fitting(free: Resources) -> Iterable[sa.ColumnElement[bool]]:
    for column, there in (
        (BUILDS.c.cpu_cores, free.cpu_cores),
        (BUILDS.c.memory_bytes, free.memory_bytes),
        (BUILDS.c.disk_bytes, free.disk_bytes),
    ):
        if there:
            yield column <= there


def _limits(connection: Connection) -> dict[Scope, int]:
    rows = connection.execute(sa.select(LIMITS))
    return {Scope(row.project, row.model): row.max_running for row in rows}


def _worker(row: Any) -> Worker:
    return Worker(
        worker=row.worker,
        pool=row.pool,
        max_builds=row.max_builds,
        total=Resources(row.cpu_cores, row.memory_bytes, row.disk_bytes),
        start_time=row.start_time,
        sign_time=row.sign_time,
    )


def _insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that can say what to do on a conflict; both dialects spell it alike."""
    postgres = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if postgres else sqlite.insert(table)
