"""The builder's tables and queries, for SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from services.builder.domain import (
    ENDED,
    LEASED,
    Attempt,
    Build,
    BuildState,
    Delegation,
    Failure,
    FetchedSource,
    Lease,
    Phase,
    Winner,
)
from services.builder.spec import BuildSpec
from services.common.audit import entries as audit
from services.common.listing.filtering import (
    Expression,
    FieldCompiler,
    compile_filter,
    enum_field,
    map_field,
    number_field,
    text_field,
    timestamp_field,
)
from services.common.names import BuildName
from services.common.sql import idempotency, outbox
from services.common.sql.database import Timestamp

METADATA = sa.MetaData()
outbox.tables(METADATA)
idempotency.table(METADATA)
audit.tables(METADATA)

BUILDS = sa.Table(
    "builds",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("build", sa.Text, primary_key=True),
    # The model's id alone: filters compare it.
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("build_group", sa.Text, nullable=False),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failure", sa.LargeBinary, nullable=False),
    sa.Column("phases", sa.LargeBinary, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("acknowledged", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("fetched", sa.LargeBinary, nullable=False),
    sa.Column("winner", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("start_time", Timestamp),
    sa.Column("end_time", Timestamp),
    sa.Column("delegation", sa.Text, nullable=False),
    sa.Column("delegation_renew_time", Timestamp, nullable=False),
    sa.Column("attempt_start_time", Timestamp),
    sa.Column("past_attempts", sa.LargeBinary, nullable=False),
    sa.Column("retry_time", Timestamp),
    # Of the spec, what the queue is ordered and searched by.
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("cpu_cores", sa.Double, nullable=False),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
    sa.Column("disk_bytes", sa.BigInteger, nullable=False),
    sa.Column("events_trimmed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("builds_by_age", "project", "create_time", "build"),
    sa.Index("builds_by_state", "state", "create_time"),
)
LABELS = sa.Table(
    "build_labels",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
RUNS_TO_FINISH = sa.Table(
    "runs_to_finish",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
)

FIELDS: dict[str, FieldCompiler] = {
    "model": text_field(BUILDS.c.model),
    "state": enum_field(BUILDS.c.state, frozenset(BuildState)),
    "creator": text_field(BUILDS.c.creator),
    "create_time": timestamp_field(BUILDS.c.create_time),
    "pool": text_field(BUILDS.c.pool),
    "priority": number_field(BUILDS.c.priority),
    "group": text_field(BUILDS.c.build_group),
    "labels": map_field(
        sa.and_(LABELS.c.project == BUILDS.c.project, LABELS.c.build == BUILDS.c.build),
        key=LABELS.c.key,
        values=text_field(LABELS.c.value),
    ),
}


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run whose end metadata does not know of yet."""

    run: str
    build: BuildName
    state: str
    """SUCCEEDED, FAILED or CANCELLED."""
    reason: str
    message: str


def add_build(connection: Connection, build: Build) -> None:
    """Store a new build."""
    keys = {"project": build.name.project, "build": build.name.build}
    connection.execute(BUILDS.insert().values(**keys, **_columns(build)))
    labels = [{**keys, "key": key, "value": value} for key, value in build.spec.labels.items()]
    if labels:
        connection.execute(LABELS.insert(), labels)


def save_build(connection: Connection, build: Build) -> None:
    """Store a build's changes."""
    connection.execute(BUILDS.update().where(_is(build.name)).values(**_columns(build)))


def find_build(connection: Connection, name: BuildName, *, lock: bool = False) -> Build | None:
    """Return a build; `lock` keeps it from changing until the transaction ends."""
    query = sa.select(BUILDS).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else build_of(row)


def find_claim(connection: Connection, lease: Lease) -> int | None:
    """Return up to which batch a lease's events are durable, locked; None: it does not hold."""
    query = sa.select(BUILDS.c.acknowledged).where(
        _is(lease.build),
        BUILDS.c.state.in_(LEASED),
        BUILDS.c.attempt == lease.attempt,
        BUILDS.c.fence == lease.fence,
    )
    found: int | None = connection.execute(query.with_for_update()).scalar()
    return found


def note_batch(connection: Connection, name: BuildName, sequence: int) -> None:
    """Keep that a batch is durable, which is a sign of life as well."""
    beat = {"acknowledged": sequence, "beats": BUILDS.c.beats + 1}
    connection.execute(BUILDS.update().where(_is(name)).values(**beat))


def list_builds(
    connection: Connection,
    project: str,
    *,
    where: Expression | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Build]:
    """Return a project's builds, newest first, from before a (create time, id) on."""
    query = sa.select(BUILDS).where(BUILDS.c.project == project)
    if where is not None:
        query = query.where(compile_filter(where, FIELDS))
    if before is not None:
        time, build = before
        older = BUILDS.c.create_time < time
        same = sa.and_(BUILDS.c.create_time == time, BUILDS.c.build < build)
        query = query.where(sa.or_(older, same))
    query = query.order_by(BUILDS.c.create_time.desc(), BUILDS.c.build.desc()).limit(limit)
    return [build_of(row) for row in connection.execute(query)]


def leased_builds(connection: Connection) -> list[Build]:
    """Return the builds that workers have."""
    return _in_states(connection, LEASED)


def builds_to_renew(connection: Connection, now: datetime, *, limit: int = 100) -> list[Build]:
    """Return the builds in progress whose delegations should be renewed by now."""
    query = (
        sa.select(BUILDS)
        .where(BUILDS.c.state.not_in(ENDED), BUILDS.c.delegation_renew_time <= now)
        .limit(limit)
    )
    return [build_of(row) for row in connection.execute(query)]


def builds_to_trim(connection: Connection, before: datetime, *, limit: int = 100) -> list[Build]:
    """Return builds that ended before a moment and whose events are all kept still."""
    ended = sa.and_(BUILDS.c.state.in_(ENDED), BUILDS.c.end_time < before)
    query = sa.select(BUILDS).where(ended, BUILDS.c.events_trimmed.is_(sa.false())).limit(limit)
    return [build_of(row) for row in connection.execute(query)]


def note_trimmed(connection: Connection, name: BuildName) -> None:
    """Keep that a build's events were trimmed."""
    connection.execute(BUILDS.update().where(_is(name)).values(events_trimmed=True))


def save_delegation(connection: Connection, name: BuildName, delegation: Delegation) -> None:
    """Store a build's new delegation; nothing else of it is touched."""
    connection.execute(
        BUILDS.update()
        .where(_is(name))
        .values(delegation=delegation.credential, delegation_renew_time=delegation.renew_time)
    )


def add_unfinished_run(connection: Connection, run: UnfinishedRun) -> None:
    """Note that metadata must be told of a run's end; the first note counts."""
    connection.execute(
        insert(connection, RUNS_TO_FINISH)
        .values(
            run=run.run,
            project=run.build.project,
            build=run.build.build,
            state=run.state,
            reason=run.reason,
            message=run.message,
        )
        .on_conflict_do_nothing()
    )


def unfinished_runs(connection: Connection, *, limit: int = 100) -> list[UnfinishedRun]:
    """Return runs whose end metadata does not know of yet."""
    rows = connection.execute(sa.select(RUNS_TO_FINISH).limit(limit))
    return [
        UnfinishedRun(
            row.run, BuildName(row.project, row.build), row.state, row.reason, row.message
        )
        for row in rows
    ]


def delete_unfinished_run(connection: Connection, run: str) -> None:
    """Forget a run whose end metadata knows of."""
    connection.execute(RUNS_TO_FINISH.delete().where(RUNS_TO_FINISH.c.run == run))


def _in_states(connection: Connection, states: Collection[BuildState]) -> list[Build]:
    query = sa.select(BUILDS).where(BUILDS.c.state.in_(states))
    return [build_of(row) for row in connection.execute(query)]


def _is(name: BuildName) -> sa.ColumnElement[bool]:
    return sa.and_(BUILDS.c.project == name.project, BUILDS.c.build == name.build)


def insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that can say what to do on a conflict; both dialects spell it alike."""
    postgres = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if postgres else sqlite.insert(table)


def _columns(build: Build) -> dict[str, Any]:
    encode = msgspec.msgpack.encode
    return {
        "model": build.model.rpartition("/")[2],
        "build_group": build.spec.group,
        "spec": encode(build.spec),
        "creator": build.creator,
        "create_time": build.create_time,
        "state": build.state,
        "failure": encode(build.failure),
        "phases": encode(build.phases),
        "attempt": build.attempt,
        "fence": build.fence,
        "beats": build.beats,
        "acknowledged": build.acknowledged,
        "worker": build.worker,
        "run": build.run,
        "fetched": encode(build.fetched),
        "winner": encode(build.winner),
        "version": build.version,
        "start_time": build.start_time,
        "end_time": build.end_time,
        "delegation": build.delegation.credential,
        "delegation_renew_time": build.delegation.renew_time,
        "attempt_start_time": build.attempt_start_time,
        "past_attempts": encode(build.past_attempts),
        "retry_time": build.retry_time,
        "priority": build.spec.priority,
        "pool": build.spec.pool,
        "cpu_cores": build.spec.resources.cpu_cores,
        "memory_bytes": build.spec.resources.memory_bytes,
        "disk_bytes": build.spec.resources.disk_bytes,
    }


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind).decode


_SPEC = _decoder(BuildSpec)
_FAILURE = _decoder(Failure | None)
_PHASES = _decoder(tuple[Phase, ...])
_FETCHED = _decoder(FetchedSource | None)
_WINNER = _decoder(Winner | None)
_ATTEMPTS = _decoder(tuple[Attempt, ...])


def build_of(row: Any) -> Build:
    """Read a build from its row."""
    return Build(
        name=BuildName(row.project, row.build),
        model=f"projects/{row.project}/models/{row.model}",
        spec=_SPEC(row.spec),
        creator=row.creator,
        create_time=row.create_time,
        delegation=Delegation(row.delegation, row.delegation_renew_time),
        state=BuildState(row.state),
        failure=_FAILURE(row.failure),
        phases=_PHASES(row.phases),
        attempt=row.attempt,
        fence=row.fence,
        beats=row.beats,
        acknowledged=row.acknowledged,
        worker=row.worker,
        run=row.run,
        fetched=_FETCHED(row.fetched),
        winner=_WINNER(row.winner),
        version=row.version,
        start_time=row.start_time,
        end_time=row.end_time,
        attempt_start_time=row.attempt_start_time,
        past_attempts=_ATTEMPTS(row.past_attempts),
        retry_time=row.retry_time,
    )
