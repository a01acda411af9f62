"""The tables of automations, and the queries of automations and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.builder.automations.domain import (
    Automation,
    Draft,
    MetricSource,
    Report,
    Watching,
)
from services.builder.domain import Delegation
from services.builder.store import METADATA, insert
from services.common.names import AutomationName
from services.common.sql.database import Double, Timestamp

AUTOMATIONS = sa.Table(
    "automations",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("automation", sa.Text, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False),
    sa.Column("draft", sa.LargeBinary, nullable=False),
    # Of the draft, for what looks for triggers.
    sa.Column("metric_source", sa.Text, nullable=False),
    sa.Column("metric_model", sa.Text, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("heard", sa.Boolean, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("delegation", sa.Text, nullable=False),
    sa.Column("delegation_renew_time", Timestamp, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    sa.Column("edition", sa.BigInteger, nullable=False),
    sa.Column("suspension", sa.Text, nullable=False),
    sa.Column("next_time", Timestamp),
    sa.Column("watching", sa.LargeBinary, nullable=False),
    sa.Column("look_time", Timestamp),
    sa.Column("executions", sa.BigInteger, nullable=False),
    sa.Column("last_execution", sa.Text, nullable=False),
    sa.Index("automations_by_next_time", "next_time"),
    sa.Index("automations_by_metric", "project", "metric_model", "metric"),
)
REPORTED_METRICS = sa.Table(
    "reported_metrics",
    METADATA,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)
REPORTS = sa.Table(
    "reported_values",
    METADATA,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", Double, nullable=False),
    sa.Column("time", Timestamp, nullable=False),
    sa.Column("reporter", sa.Text, nullable=False),
)


def add_automation(connection: Connection, automation: Automation) -> None:
    """Store a new automation."""
    keys = {"project": automation.name.project, "automation": automation.name.automation}
    connection.execute(AUTOMATIONS.insert().values(**keys, **_columns(automation)))


def save_automation(connection: Connection, automation: Automation) -> None:
    """Store an automation's changes."""
    changed = AUTOMATIONS.update().where(_is(automation.name)).values(**_columns(automation))
    connection.execute(changed)


def delete_automation(connection: Connection, name: AutomationName) -> None:
    """Forget an automation."""
    connection.execute(AUTOMATIONS.delete().where(_is(name)))


def find_automation(
    connection: Connection, name: AutomationName, *, lock: bool = False
) -> Automation | None:
    """Return an automation; `lock` keeps it from changing until the transaction ends."""
    query = sa.select(AUTOMATIONS).where(_is(name))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _automation(row)


def count_automations(connection: Connection, project: str) -> int:
    """Count a project's automations."""
    query = sa.select(sa.func.count()).where(AUTOMATIONS.c.project == project)
    return int(connection.execute(query).scalar_one())


def list_automations(
    connection: Connection, project: str, *, after: str, limit: int
) -> list[Automation]:
    """Return a project's automations by id, after one."""
    query = (
        sa.select(AUTOMATIONS)
        .where(AUTOMATIONS.c.project == project, AUTOMATIONS.c.automation > after)
        .order_by(AUTOMATIONS.c.automation)
        .limit(limit)
    )
    return [_automation(row) for row in connection.execute(query)]


def take_due(connection: Connection, now: datetime, *, limit: int) -> list[Automation]:
    """Return automations whose time has come that nobody else is taking, locked."""
    query = (
        sa.select(AUTOMATIONS)
        .where(AUTOMATIONS.c.heard.is_(sa.true()), AUTOMATIONS.c.next_time <= now)
        .order_by(AUTOMATIONS.c.next_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [_automation(row) for row in connection.execute(query)]


def take_to_look(
    connection: Connection, now: datetime, *, seconds: float, limit: int
) -> list[Automation]:
    """Return automations that should ask metadata by now; nobody else will for so many seconds."""
    query = (
        sa.select(AUTOMATIONS)
        .where(AUTOMATIONS.c.heard.is_(sa.true()), AUTOMATIONS.c.look_time <= now)
        .order_by(AUTOMATIONS.c.look_time)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = [_automation(row) for row in connection.execute(query)]
    for automation in found:
        later = AUTOMATIONS.update().where(_is(automation.name))
        connection.execute(later.values(look_time=now + timedelta(seconds=seconds)))
    return found


def listeners(connection: Connection, project: str, model: str, metric: str) -> list[Automation]:
    """Return the automations that hear reports of a model's metric, locked, by id."""
    query = (
        sa.select(AUTOMATIONS)
        .where(
            AUTOMATIONS.c.project == project,
            AUTOMATIONS.c.metric_model == model,
            AUTOMATIONS.c.metric == metric,
            AUTOMATIONS.c.metric_source == MetricSource.REPORT,
            AUTOMATIONS.c.heard.is_(sa.true()),
        )
        .order_by(AUTOMATIONS.c.automation)
        .with_for_update()
    )
    return [_automation(row) for row in connection.execute(query)]


def automations_to_renew(
    connection: Connection, now: datetime, *, limit: int = 100
) -> list[Automation]:
    """Return the automations whose delegations should be renewed by now."""
    query = (
        sa.select(AUTOMATIONS)
        .where(AUTOMATIONS.c.suspension == "", AUTOMATIONS.c.delegation_renew_time <= now)
        .order_by(AUTOMATIONS.c.delegation_renew_time)
        .limit(limit)
    )
    return [_automation(row) for row in connection.execute(query)]


def save_delegation(connection: Connection, automation: Automation, delegation: Delegation) -> None:
    """Store an automation's new delegation, unless it was taken over meanwhile."""
    same = sa.and_(_is(automation.name), AUTOMATIONS.c.edition == automation.edition)
    connection.execute(
        AUTOMATIONS.update()
        .where(same, AUTOMATIONS.c.uid == automation.uid)
        .values(delegation=delegation.credential, delegation_renew_time=delegation.renew_time)
    )


def add_report(connection: Connection, report: Report, *, keep: int) -> Report:
    """Store a reported value as the newest of its metric; the oldest beyond `keep` go.

    Until the transaction ends, no other value of the metric comes in.
    """
    sequence = connection.execute(_next_sequence(connection, report)).scalar_one()
    stored = replace(report, sequence=sequence)
    own = sa.and_(REPORTS.c.model == report.model, REPORTS.c.metric == report.metric)
    columns = {column.name: getattr(stored, column.name) for column in REPORTS.columns}
    connection.execute(REPORTS.insert().values(**columns))
    connection.execute(REPORTS.delete().where(own, REPORTS.c.sequence <= stored.sequence - keep))
    return stored


def _next_sequence(connection: Connection, report: Report) -> Any:
    table = REPORTED_METRICS
    new: Any = insert(connection, table)
    first = new.values(model=report.model, metric=report.metric, sequence=1)
    return first.on_conflict_do_update(
        index_elements=["model", "metric"], set_={"sequence": table.c.sequence + 1}
    ).returning(table.c.sequence)


def list_reports(
    connection: Connection, model: str, metric: str, *, before: int | None, limit: int
) -> list[Report]:
    """Return a metric's reported values, newest first, from before one on."""
    query = sa.select(REPORTS).where(REPORTS.c.model == model, REPORTS.c.metric == metric)
    if before is not None:
        query = query.where(REPORTS.c.sequence < before)
    rows = connection.execute(query.order_by(REPORTS.c.sequence.desc()).limit(limit))
    return [
        Report(row.model, row.metric, row.value, row.time, row.reporter, row.sequence)
        for row in rows
    ]


def _is(name: AutomationName) -> sa.ColumnElement[bool]:
    own = AUTOMATIONS.c.project == name.project
    return sa.and_(own, AUTOMATIONS.c.automation == name.automation)


def _columns(automation: Automation) -> dict[str, Any]:
    encode, draft = msgspec.msgpack.encode, automation.draft
    trigger = draft.trigger
    return {
        "uid": automation.uid,
        "draft": encode(draft),
        "metric_source": trigger.source or "",
        "metric_model": trigger.model or draft.model,
        "metric": trigger.metric,
        "heard": not (draft.disabled or automation.suspension),
        "principal": automation.principal,
        "delegation": automation.delegation.credential,
        "delegation_renew_time": automation.delegation.renew_time,
        "create_time": automation.create_time,
        "update_time": automation.update_time,
        "edition": automation.edition,
        "suspension": automation.suspension,
        "next_time": automation.next_time,
        "watching": encode(automation.watching),
        "look_time": automation.look_time,
        "executions": automation.executions,
        "last_execution": automation.last_execution,
    }


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(kind).decode


_DRAFT = _decoder(Draft)
_WATCHING = _decoder(Watching)


def _automation(row: Any) -> Automation:
    return Automation(
        name=AutomationName(row.project, row.automation),
        uid=row.uid,
        draft=_DRAFT(row.draft),
        principal=row.principal,
        delegation=Delegation(row.delegation, row.delegation_renew_time),
        create_time=row.create_time,
        update_time=row.update_time,
        edition=row.edition,
        suspension=row.suspension,
        next_time=row.next_time,
        watching=_WATCHING(row.watching),
        look_time=row.look_time,
        executions=row.executions,
        last_execution=row.last_execution,
    )
