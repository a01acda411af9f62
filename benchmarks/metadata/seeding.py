"""Fill our fresh database with runs and versions, by SQL: `python -m … URL RUNS [VERSIONS]`.

What a run holds is what `seed_rival.py` gives the rival.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.common.sql.database import Database, Transaction
from services.common.sql.engines import create_engine, migrate
from services.metadata.models.store import ALIASES, MODELS, VERSIONS
from services.metadata.projects.directory import Directory
from services.metadata.runs.store import RUN_PARAMS, RUN_TAGS, RUNS, SERIES
from services.metadata.values import ParamValue, pack, param_columns
from services.metadata.wiring import MIGRATIONS, now

PROJECT, MODEL = "default", "seeded"
METRICS = 5
CHUNK = 5_000


async def main(url: str, runs: int, versions: int) -> None:
    """Write the rows."""
    if url.startswith("postgresql"):  # a SQLite file is migrated when it is opened
        engine = create_engine(url)
        migrate(engine, MIGRATIONS)
        engine.dispose()
    database = Database.open(url, migrations=MIGRATIONS)
    await Directory(database=database, clock=now).ensure_default_project()
    random.seed(1)
    started = datetime.now(UTC) - timedelta(days=1)
    await database.write(lambda tx: _insert(tx, MODELS, [_model(started, versions)]))
    for first in range(0, runs, CHUNK):
        rows = _runs(first, min(first + CHUNK, runs), started)
        await database.write(lambda tx, rows=rows: _insert_all(tx, rows))  # type: ignore[misc]
    for first in range(0, versions, CHUNK):
        found = list(_versions(first, min(first + CHUNK, versions), started))
        for table, row in ((VERSIONS, 0), (ALIASES, 1)):
            part = [pair[row] for pair in found]
            await database.write(lambda tx, t=table, r=part: _insert(tx, t, r))  # type: ignore[misc]
    await database.write(_set_sequences)
    database.close()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")


def _insert(tx: Transaction, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        tx.connection.execute(table.insert(), rows)


def _insert_all(tx: Transaction, parts: list[tuple[sa.Table, list[dict[str, Any]]]]) -> None:
    for table, rows in parts:
        _insert(tx, table, rows)


def _set_sequences(tx: Transaction) -> None:
    """Let PostgreSQL's own row ids go on after the seeded ones."""
    if tx.connection.dialect.name != "postgresql":
        return
    for table in (MODELS, RUNS, SERIES, VERSIONS):
        top = sa.select(sa.func.coalesce(sa.func.max(table.c.pk), 1)).scalar_subquery()
        name = sa.func.pg_get_serial_sequence(table.name, "pk")
        tx.connection.execute(sa.select(sa.func.setval(name, top)))


def _model(started: datetime, versions: int) -> dict[str, Any]:
    return {
        "pk": 1,
        "project": PROJECT,
        "model": MODEL,
        "display_name": "",
        "description": "",
        "last_number": versions,
        "revision": 1,
        "create_time": started,
        "update_time": started,
    }


def _runs(first: int, last: int, started: datetime) -> list[tuple[sa.Table, list[dict[str, Any]]]]:
    runs, series, params, tags = [], [], [], []
    for number in range(first, last):
        pk = number + 1
        at = started + timedelta(milliseconds=number)
        runs.append(_run(pk, number, at))
        for key in range(METRICS):
            value = random.random()  # noqa: S311 - no secret
            figures = dict.fromkeys(("last", "last_rank", "min", "max"), value)
            series.append(
                {"pk": number * METRICS + key + 1, "run_pk": pk, "model_pk": 1, "key": f"m{key}"}
                | {"count": 1, "last_step": 1, **figures}
            )
        texts: dict[str, ParamValue] = {
            "p0": number,
            "p1": f"v{number % 1000}",
            "p2": "same",
            "p3": "x",
            "p4": "y",
        }
        params += [
            {"run_pk": pk, "model_pk": 1, "key": key, **param_columns(value)}
            for key, value in texts.items()
        ]
        kinds = {"team": f"t{number % 1000}", "kind": "bench"}
        tags += [
            {"run_pk": pk, "model_pk": 1, "key": key, "value": value}
            for key, value in kinds.items()
        ]
    return [(RUNS, runs), (SERIES, series), (RUN_PARAMS, params), (RUN_TAGS, tags)]


def _run(pk: int, number: int, at: datetime) -> dict[str, Any]:
    empty = ("display_name", "notes", "run_group", "build", "image", "git_commit", "git_branch")
    return {
        **dict.fromkeys((*empty, "diff"), ""),
        "pk": pk,
        "model_pk": 1,
        "run": f"r{number}",
        "state": "SUCCEEDED",
        "creator": "user:admin",
        "create_time": at,
        "heartbeat_time": at,
        "revision": 1,
    }


def _versions(
    first: int, last: int, started: datetime
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    empty = (
        "run",
        "build",
        "label",
        "description",
        "card",
        "license",
        "image",
        "environment_digest",
    )
    for number in range(first + 1, last + 1):
        version = {
            **dict.fromkeys(empty, ""),
            "pk": number,
            "model_pk": 1,
            "number": number,
            "state": "READY",
            "artifact": f"{number:064x}",
            "tests_passed": False,
            "revision": 1,
            "wanted_aliases": pack(()),
            "creator": "user:admin",
            "create_time": started,
            "ready_time": started,
        }
        alias = {"model_pk": 1, "alias": f"a{number}", "version_pk": number}
        yield version, alias | {"change_pk": 0, "update_time": started}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 0))
