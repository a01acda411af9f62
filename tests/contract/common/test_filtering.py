"""Filters select the same rows on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from services.common.listing.filtering import compile_filter, parse_filter
from tests.contract.common.filter_schema import FIELDS, RUNS, fill
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def module_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    if request.param == "sqlite":
        url = "sqlite://"
    else:
        url = request.getfixturevalue("module_postgres_url").replace(
            "postgresql:", "postgresql+psycopg:"
        )
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        fill(connection)
        yield connection
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


def test_32_parentheses_are_taken_and_33_are_not(connection: sa.Connection) -> None:
    assert select(connection, "(" * 32 + "rows < 0" + ")" * 32) == {2}
    assert select(connection, "NOT (" * 32 + "rows < 0" + ")" * 32) == {2}


def test_100_comparisons_are_taken_and_101_are_not(connection: sa.Connection) -> None:
    assert select(connection, " OR ".join(["metrics.f1 > 1e300"] * 100)) == {1}
