from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from services.common.database import Double, Timestamp
from services.common.errors import Reason, ServiceError
from services.common.filter_syntax import And, Comparison, Not, Or
from services.common.filtering import (
    FieldCompiler,
    Operator,
    OrderTerm,
    compile_filter,
    enum_field,
    flag_field,
    map_field,
    number_field,
    parse_filter,
    parse_order,
    text_field,
    timestamp_field,
    typed_field,
)

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


@pytest.fixture(scope="module")
def connection() -> Iterator[sa.Connection]:
    engine = sa.create_engine("sqlite://")
    SCHEMA.create_all(engine)
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
    with engine.begin() as open_connection:
        open_connection.execute(RUNS.insert(), [blank | run for run in runs])
        open_connection.execute(
            TAGS.insert(),
            [
                {"run": 1, "key": "team", "value": "risk"},
                {"run": 2, "key": "team", "value": "fraud"},
                {"run": 2, "key": "a.b c", "value": "x"},
                {"run": 3, "key": "env", "value": "preproduction"},
            ],
        )
        open_connection.execute(
            PARAMS.insert(),
            [
                {"run": 1, "key": "depth", "text": None, "number": 6.0},
                {"run": 2, "key": "depth", "text": "6", "number": None},
            ],
        )
        open_connection.execute(
            METRICS.insert(),
            [
                {"run": 1, "key": "val/loss", "last": 0.5, "max": 0.9},
                {"run": 2, "key": "val/loss", "last": float("nan"), "max": float("nan")},
                {"run": 1, "key": "f1", "last": float("inf"), "max": float("inf")},
            ],
        )
        yield open_connection
    engine.dispose()


def select(connection: sa.Connection, text: str) -> set[int]:
    expression = parse_filter(text)
    assert expression is not None
    query = sa.select(RUNS.c.id).where(compile_filter(expression, FIELDS))
    return set(connection.execute(query).scalars())


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("state = RUNNING", {1}),
        ('state != "RUNNING"', {2, 3}),
        ("rows = 9007199254740993", {1}),
        ("rows<0", {2}),
        ("rows > -5.5 AND rows < 0", {2}),
        ("NOT rows < 0", {1, 3}),
        ('title:"100%"', {1}),
        ('title:"%"', {1}),
        ('title:"_"', {1}),
        ('title:"TITLE"', {2}),
        ('title = "A \\"quoted\\" \\\\ Title"', {2}),
        ("title = 'A \"quoted\" \\\\ T\\u0069tle'", {2}),
        ('title != "x"', {1, 2}),
        ('NOT title = "x"', {1, 2, 3}),
        ("title:*", {1, 2}),
        ("archived = true", {2}),
        ("archived != true", {3}),
        ("NOT archived = true", {1, 3}),
        ('started >= "2026-01-31T13:00:00+01:00"', {1}),
        ('started > "2026-01-31T12:00:00Z"', set()),
        ('started < "2026-01-31T12:00:00.000001z"', {1}),
        ('tags.team = "risk"', {1}),
        ('tags.team != "risk"', {2}),
        ('NOT tags.team = "risk"', {2, 3}),
        ('tags["a.b c"] = "x"', {2}),
        ('tags.env:"prod"', {3}),
        ("tags:team", {1, 2}),
        ("tags.team:*", {1, 2}),
        ("tags:*", {1, 2, 3}),
        ("params.depth = 6", {1}),
        ('params.depth = "6"', {2}),
        ("params.depth:*", {1, 2}),
        ("params.depth >= 6e0", {1}),
        ('metrics["val/loss"] > 0.4', {1}),
        ('metrics["val/loss"].max > 0.7', {1}),
        ('metrics["val/loss"].max >= -1e300', {1}),
        ('metrics["val/loss"] < 1', {1}),
        ("metrics.f1.max > 1e308", {1}),
        ("metrics.missing > 0", set()),
        ("(state = RUNNING OR state = FAILED) AND NOT (rows < 0)", {1}),
        ("state = RUNNING OR (state = FAILED AND rows = 1)", {1}),
        ("state = FAILED OR state = SUCCEEDED\n\tOR state=RUNNING", {1, 2, 3}),
        ("NOT (NOT (rows < 0))", {2}),
        ('title = "x\' OR 1=1 --"', set()),
    ],
)
def test_rows(connection: sa.Connection, text: str, ids: set[int]) -> None:
    assert select(connection, text) == ids


def test_tree() -> None:
    def is_(name: str, position: int) -> Comparison:
        return Comparison((name,), Operator.EQUAL, 1, position)

    assert parse_filter("a=1 AND (b=1 OR NOT c=1)") == And(
        (is_("a", 0), Or((is_("b", 9), Not(is_("c", 20)))))
    )
    assert parse_filter('labels["a b"].NOT:"x"') == Comparison(
        ("labels", "a b", "NOT"), Operator.HAS, "x", 0
    )
    assert parse_filter(" \n") is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("state", 5),
        ("state =", 7),
        ("= 1", 0),
        ("state = RUNNING AND", 19),
        ("state = RUNNING state = FAILED", 16),
        ("(rows = 1", 9),
        ("rows = 1)", 8),
        ("rows ~ 1", 5),
        ("rows = 1 && rows = 2", 9),
        ('title = "open', 8),
        ('title = "a\\q"', 10),
        ('title = "a\0"', 10),
        ('title = "a\\u0000"', 8),
        ('title = "\\ud800"', 8),
        ('title = "\ud800"', 9),
        ('title = "\x7f"', 9),
        ('title = "a\nb"', 8),
        ("rows = 1e999", 7),
        ("rows = 9223372036854775808", 7),
        ("rows = 1 AND rows = 1abc", 20),
        ("rows = 1 AND rows = 2 OR rows = 3", 0),
        ("rows = 1 OR rows = 2 AND rows = 3", 12),
        ("NOT NOT rows = 1", 8),
        ("nothing = 1", 0),
        ("rows = 1 AND nothing.x = 1", 13),
        ("rows.x = 1", 0),
        ('rows = "1"', 0),
        ("rows = true", 0),
        ("rows:1", 0),
        ("rows = *", 0),
        ("title = 1", 0),
        ('title < "a"', 0),
        ("state = DONE", 0),
        ("state > RUNNING", 0),
        ('archived = "true"', 0),
        ('started > "yesterday"', 0),
        ('started > "2026-01-31"', 0),
        ('started > "2026-01-31T12:00:00"', 0),
        ('started > "2026-13-31T12:00:00Z"', 0),
        ('started > "0001-01-01T00:00:00+23:59"', 0),
        ('started:"2026-01-31T12:00:00Z"', 0),
        ('tags = "x"', 0),
        ('tags.a.b = "x"', 0),
        ("tags.team = 1", 0),
        ("params.depth = true", 0),
        ("metrics.f1.median > 1", 0),
        ("a" * 4097, 4096),
    ],
)
def test_refusals(connection: sa.Connection, text: str, position: int) -> None:
    with pytest.raises(ServiceError) as caught:
        select(connection, text)
    assert caught.value.reason is Reason.INVALID_FILTER
    assert caught.value.metadata["position"] == str(position)
    assert caught.value.metadata["problem"] in caught.value.message


def test_32_parentheses_are_taken_and_33_are_not(connection: sa.Connection) -> None:
    assert select(connection, "(" * 32 + "rows < 0" + ")" * 32) == {2}
    assert select(connection, "NOT (" * 32 + "rows < 0" + ")" * 32) == {2}
    with pytest.raises(ServiceError, match="parentheses deep"):
        parse_filter("(" * 33 + "rows < 0" + ")" * 33)
    assert parse_filter('title = "' + "(" * 100 + '"') is not None


def test_100_comparisons_are_taken_and_101_are_not(connection: sa.Connection) -> None:
    assert select(connection, " OR ".join(["metrics.f1 > 1e300"] * 100)) == {1}
    with pytest.raises(ServiceError, match="more than 100 comparisons"):
        parse_filter(" OR ".join(["rows < 0"] * 101))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "(" * 4096,
        ")" * 4096,
        "NOT " * 1024,
        '"' * 4096,
        "'\\" * 2048,
        'a = "' + "\\" * 4091,
        "a" * 4096,
        "9" * 4096,
        "a" + ".a" * 2047,
        "a = 1 OR " * 455,
        " " * 4095 + "=",
        "1." * 2048,
    ],
)
def test_hostile_text_is_refused_fast(text: str) -> None:
    parse_filter("a = 1")
    start = time.perf_counter()
    with pytest.raises(ServiceError):
        parse_filter(text)
    assert time.perf_counter() - start < 0.5


ALLOWED = {"create_time", "title", "metrics.*"}


def test_order() -> None:
    assert parse_order("", ALLOWED) == []
    assert parse_order('create_time desc, metrics["val/loss"].max asc,metrics.f1', ALLOWED) == [
        OrderTerm(("create_time",), descending=True),
        OrderTerm(("metrics", "val/loss", "max"), descending=False),
        OrderTerm(("metrics", "f1"), descending=False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "title,",
        ",title",
        "title down",
        "title desc desc",
        "title DESC",
        "unknown",
        "metrics",
        "title.x",
        "title, create_time, title desc",
        "title; drop table runs",
        'metrics["\\u0000"]',
        "metrics.a" + ",metrics.a" * 300,
        ",".join(f"metrics.m{n}" for n in range(9)),
    ],
)
def test_order_refusals(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_order(text, ALLOWED)
    assert caught.value.reason is Reason.INVALID_ORDER
    assert caught.value.metadata["order_by"] == text[:200]
