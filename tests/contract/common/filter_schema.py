"""A schema with every kind of filterable field, and three rows in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.common.listing.filtering import (
    FieldCompiler,
    enum_field,
    flag_field,
    map_field,
    number_field,
    text_field,
    timestamp_field,
    typed_field,
)
from services.common.sql.database import Double, Timestamp

SCHEMA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("title", sa.Text),
    sa.Column("state", sa.Text),
    sa.Column("rows", sa.BigInteger),
    sa.Column("started", Timestamp),
    sa.Column("archived", sa.Boolean),
)
TAGS = sa.Table(
    "tags",
    SCHEMA,
    sa.Column("run", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text),
)
PARAMS = sa.Table(
    "params",
    SCHEMA,
    sa.Column("run", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text", sa.Text),
    sa.Column("number", Double),
)
METRICS = sa.Table(
    "metrics",
    SCHEMA,
    sa.Column("run", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("last", Double),
    sa.Column("max", Double),
)
FIELDS: dict[str, FieldCompiler] = {
    "title": text_field(RUNS.c.title),
    "state": enum_field(RUNS.c.state, {"RUNNING", "FAILED", "SUCCEEDED"}),
    "rows": number_field(RUNS.c.rows),
    "started": timestamp_field(RUNS.c.started),
    "archived": flag_field(RUNS.c.archived),
    "tags": map_field(TAGS.c.run == RUNS.c.id, key=TAGS.c.key, values=text_field(TAGS.c.value)),
    "params": map_field(
        PARAMS.c.run == RUNS.c.id,
        key=PARAMS.c.key,
        values=typed_field(text=text_field(PARAMS.c.text), number=number_field(PARAMS.c.number)),
    ),
    "metrics": map_field(
        METRICS.c.run == RUNS.c.id,
        key=METRICS.c.key,
        values={"": number_field(METRICS.c.last), "max": number_field(METRICS.c.max)},
    ),
}


def fill(connection: sa.Connection) -> None:
    SCHEMA.create_all(connection)
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    runs: list[dict[str, Any]] = [
        {
            "id": 1,
            "title": "100% sure_thing",
            "state": "RUNNING",
            "rows": 2**53 + 1,
            "started": noon,
        },
        {"id": 2, "title": 'A "quoted" \\ Title', "state": "FAILED", "rows": -5, "archived": True},
        {"id": 3, "title": None, "state": "SUCCEEDED", "rows": None, "archived": False},
    ]
    blank = dict.fromkeys(RUNS.c.keys())
    connection.execute(RUNS.insert(), [blank | run for run in runs])
    connection.execute(
        TAGS.insert(),
        [
            {"run": 1, "key": "team", "value": "risk"},
            {"run": 2, "key": "team", "value": "fraud"},
            {"run": 2, "key": "a.b c", "value": "x"},
            {"run": 3, "key": "env", "value": "preproduction"},
        ],
    )
    connection.execute(
        PARAMS.insert(),
        [
            {"run": 1, "key": "depth", "text": None, "number": 6.0},
            {"run": 2, "key": "depth", "text": "6", "number": None},
        ],
    )
    connection.execute(
        METRICS.insert(),
        [
            {"run": 1, "key": "val/loss", "last": 0.5, "max": 0.9},
            {"run": 2, "key": "val/loss", "last": float("nan"), "max": float("nan")},
            {"run": 1, "key": "f1", "last": float("inf"), "max": float("inf")},
        ],
    )
