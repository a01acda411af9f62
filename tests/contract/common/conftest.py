"""The chassis on every database it supports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.common.audit import entries as audit
from services.common.sql import idempotency, outbox
from services.common.sql.database import Database, Double, Timestamp
from services.common.sql.engines import create_engine

SCHEMA = sa.MetaData()
outbox.tables(SCHEMA)
idempotency.table(SCHEMA)
audit.tables(SCHEMA)
ROWS = sa.Table(
    "rows",
    SCHEMA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("time", Timestamp),
    sa.Column("number", Double),
    sa.Column("data", sa.LargeBinary),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'contract.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def engine(url: str) -> sa.Engine:
    engine = create_engine(url)
    SCHEMA.create_all(engine)
    return engine


@pytest.fixture
def database(engine: sa.Engine) -> Iterator[Database]:
    database = Database(engine)
    yield database
    database.close()
