"""The table of executions and its queries."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.builder.automations.domain import (
    ACTIVE,
    Action,
    Cause,
    Execution,
    ExecutionState,
    FailureReason,
    Occurrence,
    Verdict,
)
from services.builder.store import METADATA
from services.common.listing.filtering import (
    Expression,
    FieldCompiler,
    compile_filter,
    enum_field,
    text_field,
    timestamp_field,
)
from services.common.names import WILDCARD, AutomationName, ExecutionName
from services.common.sql.database import Timestamp
from services.common.sql.outbox import EPOCH

EXECUTIONS = sa.Table(
    "executions",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("automation", sa.Text, primary_key=True),
    sa.Column("execution", sa.Text, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("occurrence", sa.LargeBinary, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("action", sa.LargeBinary, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("explanation", sa.Text, nullable=False),
    sa.Column("failure", sa.Text, nullable=False),
    sa.Column("build", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("verdicts", sa.LargeBinary, nullable=False),
    sa.Column("deployment", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("start_time", Timestamp),
    sa.Column("end_time", Timestamp),
    sa.Column("fence", sa.BigInteger, nullable=False),
    # When somebody should drive it on or tell of its end; unset: there is nothing left to do.
    sa.Column("look_time", Timestamp),
    sa.Index("executions_by_age", "project", "create_time", "automation", "number"),
    sa.Index("executions_by_number", "project", "automation", "number"),
    sa.Index("executions_by_look_time", "look_time"),
)

FIELDS: dict[str, FieldCompiler] = {
    "automation": text_field(EXECUTIONS.c.automation),
    "state": enum_field(EXECUTIONS.c.state, frozenset(ExecutionState)),
    "cause": enum_field(EXECUTIONS.c.cause, frozenset(Cause)),
    "create_time": timestamp_field(EXECUTIONS.c.create_time),
}


def add_execution(connection: Connection, execution: Execution) -> None:
    """Store a new execution, to be driven on at once."""
    keys = {
        "project": execution.name.project,
        "automation": execution.name.automation,
        "execution": execution.name.execution,
    }
    row = {**keys, **_columns(execution), "fence": execution.fence, "look_time": EPOCH}
    connection.execute(EXECUTIONS.insert().values(**row))


def save_execution(
    connection: Connection, execution: Execution, *, look_time: datetime | None
) -> bool:
    """Store an execution's changes, unless another took it on meanwhile; say whether it was so."""
    held = sa.and_(_is(execution.name), EXECUTIONS.c.fence == execution.fence)
    changed = EXECUTIONS.update().where(held).values(**_columns(execution), look_time=look_time)
    return connection.execute(changed).rowcount == 1


def take_executions(
    connection: Connection, now: datetime, *, seconds: float, limit: int
) -> list[Execution]:
    """Take on executions that somebody should drive on by now, each for so many seconds."""
    query = (
        sa.select(EXECUTIONS)
        .where(EXECUTIONS.c.look_time <= now)
        .order_by(EXECUTIONS.c.look_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = [_execution(row, fence=row.fence + 1) for row in connection.execute(query)]
    for execution in taken:
        connection.execute(
            EXECUTIONS.update()
            .where(_is(execution.name))
            .values(fence=execution.fence, look_time=now + timedelta(seconds=seconds))
        )
    return taken


def find_execution(
    connection: Connection, name: ExecutionName, *, lock: bool = False
) -> Execution | None:
    """Return an execution; `lock` keeps it from changing until the transaction ends."""
    query = sa.select(EXECUTIONS).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _execution(row, fence=row.fence)


def cancel_execution(connection: Connection, execution: Execution) -> None:
    """Store that an execution was cancelled; whoever drives it on is fenced off."""
    row = {**_columns(execution), "fence": execution.fence + 1, "look_time": EPOCH}
    connection.execute(EXECUTIONS.update().where(_is(execution.name)).values(**row))


def active_executions(connection: Connection, name: AutomationName) -> list[Execution]:
    """Return an automation's executions that have not ended, oldest first."""
    query = (
        sa.select(EXECUTIONS)
        .where(_of(name), EXECUTIONS.c.state.in_(ACTIVE))
        .order_by(EXECUTIONS.c.number)
    )
    return [_execution(row, fence=row.fence) for row in connection.execute(query)]


def waits(connection: Connection, execution: Execution) -> bool:
    """Say whether an earlier execution of the automation has not ended."""
    earlier = sa.and_(
        _of(execution.name.parent),
        EXECUTIONS.c.state.in_(ACTIVE),
        EXECUTIONS.c.number < execution.number,
    )
    return (
        connection.execute(sa.select(EXECUTIONS.c.number).where(earlier).limit(1)).first()
        is not None
    )


def trim_executions(connection: Connection, name: AutomationName, until: int) -> None:
    """Forget an automation's executions up to a number, those that have not ended aside."""
    old = sa.and_(EXECUTIONS.c.number <= until, EXECUTIONS.c.state.not_in(ACTIVE))
    connection.execute(EXECUTIONS.delete().where(_of(name), old))


def delete_executions(connection: Connection, name: AutomationName) -> None:
    """Forget an automation's executions."""
    connection.execute(EXECUTIONS.delete().where(_of(name)))


def list_executions(
    connection: Connection,
    parent: AutomationName,
    *,
    where: Expression | None,
    before: tuple[datetime, str, int] | None,
    limit: int,
) -> list[Execution]:
    """Return executions, newest first, from before a (create time, automation, number) on."""
    table = EXECUTIONS.c
    query = sa.select(EXECUTIONS).where(table.project == parent.project)
    if parent.automation != WILDCARD:
        query = query.where(table.automation == parent.automation)
    if where is not None:
        query = query.where(compile_filter(where, FIELDS))
    if before is not None:
        key = sa.tuple_(table.create_time, table.automation, table.number)
        query = query.where(
            key
            < sa.tuple_(
                *(
                    sa.literal(v, c.type)
                    for v, c in zip(
                        before, (table.create_time, table.automation, table.number), strict=True
                    )
                )
            )
        )
    order = (table.create_time.desc(), table.automation.desc(), table.number.desc())
    rows = connection.execute(query.order_by(*order).limit(limit))
    return [_execution(row, fence=row.fence) for row in rows]


def _of(name: AutomationName) -> sa.ColumnElement[bool]:
    own = EXECUTIONS.c.project == name.project
    return sa.and_(own, EXECUTIONS.c.automation == name.automation)


def _is(name: ExecutionName) -> sa.ColumnElement[bool]:
    return sa.and_(_of(name.parent), EXECUTIONS.c.execution == name.execution)


def _columns(execution: Execution) -> dict[str, Any]:
    encode = msgspec.msgpack.encode
    return {
        "uid": execution.uid,
        "number": execution.number,
        "cause": execution.occurrence.cause,
        "occurrence": encode(execution.occurrence),
        "model": execution.model,
        "action": encode(execution.action),
        "principal": execution.principal,
        "create_time": execution.create_time,
        "state": execution.state,
        "explanation": execution.explanation,
        "failure": execution.failure or "",
        "build": execution.build,
        "version": execution.version,
        "verdicts": encode(execution.verdicts),
        "deployment": execution.deployment,
        "revision": execution.revision,
        "start_time": execution.start_time,
        "end_time": execution.end_time,
    }


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind).decode


_OCCURRENCE = _decoder(Occurrence)
_ACTION = _decoder(Action)
_VERDICTS = _decoder(tuple[Verdict, ...])


def _execution(row: Any, *, fence: int) -> Execution:
    return Execution(
        name=ExecutionName(row.project, row.automation, row.execution),
        uid=row.uid,
        number=row.number,
        occurrence=_OCCURRENCE(row.occurrence),
        model=row.model,
        action=_ACTION(row.action),
        principal=row.principal,
        create_time=row.create_time,
        state=ExecutionState(row.state),
        explanation=row.explanation,
        failure=FailureReason(row.failure) if row.failure else None,
        build=row.build,
        version=row.version,
        verdicts=_VERDICTS(row.verdicts),
        deployment=row.deployment,
        revision=row.revision,
        start_time=row.start_time,
        end_time=row.end_time,
        fence=fence,
    )
