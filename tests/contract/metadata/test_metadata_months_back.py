"""Of a thousand builds, months back, the one is found, and with it its artifact."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from modelyard.metadata.v1 import model_service_pb2 as models_pb

from services.common.names import ModelName
from services.common.sql.database import Database, Transaction
from services.metadata.models.labels import label_rank
from services.metadata.models.registry import ensure_model
from services.metadata.models.store import VERSION_METRICS, VERSION_PARAMS, VERSIONS
from services.metadata.projects.directory import Directory
from services.metadata.runs.store import RUN_TAGS, RUNS
from services.metadata.settings import MetadataSettings
from services.metadata.values import pack, param_columns
from services.metadata.wiring import MIGRATIONS
from tests.contract.metadata.desk import MODEL, PROJECT, Desk

BUILDS = 1_000
EPOCH = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHURN = ModelName("default", "churn")
SOUGHT = 417


@pytest.fixture
async def a_thousand_builds(settings: MetadataSettings) -> None:
    """Keep a build every four hours since January, as they would have been kept then."""
    database = Database.open(settings.database_url, migrations=MIGRATIONS)
    await Directory(database=database, clock=lambda: EPOCH).ensure_default_project()
    await database.write(_insert)
    database.close()


def _insert(tx: Transaction) -> None:
    model_pk = ensure_model(tx, CHURN, EPOCH, "user:admin")
    numbers = range(1, BUILDS + 1)
    owners = {"model_pk": model_pk}
    tables: dict[sa.Table, list[dict[str, Any]]] = {
        RUNS: [owners | _run(number) for number in numbers],
        RUN_TAGS: [
            owners | {"run_pk": number, "key": "team", "value": f"team-{number % 7}"}
            for number in numbers
        ],
        VERSIONS: [owners | _version(number) for number in numbers],
        VERSION_PARAMS: [
            owners | {"version_pk": number, "key": key} | param_columns(value)
            for number in numbers
            for key, value in (("depth", number % 50), ("lr", 1 / number))
        ],
        VERSION_METRICS: [
            owners
            | {"version_pk": number, "key": "f1"}
            | dict.fromkeys(("last", "last_rank", "min", "max"), number / BUILDS)
            for number in numbers
        ],
    }
    for table, rows in tables.items():
        tx.connection.execute(table.insert(), rows)


def _run(number: int) -> dict[str, Any]:
    empty = ("display_name", "notes", "run_group", "image", "git_branch", "diff")
    return dict.fromkeys(empty, "") | {
        "pk": number,
        "run": f"run-{number}",
        "state": "SUCCEEDED",
        "build": _build(number),
        "git_commit": f"{number:040x}",
        "creator": "user:ci",
        "create_time": _time(number),
        "heartbeat_time": _time(number),
        "revision": 1,
    }


def _version(number: int) -> dict[str, Any]:
    label = f"1.{number}.0"
    return dict.fromkeys(("description", "card", "license", "image", "environment_digest"), "") | {
        "pk": number,
        "number": number,
        "state": "READY",
        "artifact": f"{number:064x}",
        "run": f"{MODEL}/runs/run-{number}",
        "run_pk": number,
        "build": _build(number),
        "label": label,
        "label_rank": label_rank(label),
        "taken_label": label,
        "tests_passed": True,
        "wanted_aliases": pack(()),
        "creator": "user:ci",
        "create_time": _time(number),
        "ready_time": _time(number),
        "revision": 1,
    }


def _time(number: int) -> datetime:
    return EPOCH + timedelta(hours=4 * number)


def _build(number: int) -> str:
    return f"{PROJECT}/builds/b-{number}"


def _day(number: int) -> tuple[str, str]:
    at = _time(number)
    ends = (at - timedelta(hours=2), at + timedelta(hours=2))
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in ends)
    return start, end


FILTERS: dict[str, Callable[[int], str]] = {
    "commit": lambda n: f'commit = "{n:040x}"',
    "build": lambda n: f'build = "{_build(n)}"',
    "param": lambda n: f"params.lr = {1 / n!r}",
    "metric": lambda n: f"metrics.f1 > {(n - 0.5) / BUILDS} AND metrics.f1 < {(n + 0.5) / BUILDS}",
    "time": lambda n: f'create_time > "{_day(n)[0]}" AND create_time < "{_day(n)[1]}"',
    "label": lambda n: f'label = "1.{n}.0"',
    "several": lambda n: (
        f'params.depth = {n % 50} AND tags.team = "team-{n % 7}"'
        f' AND create_time < "{_day(n)[1]}" AND create_time > "{_day(n)[0]}"'
    ),
}


@pytest.mark.usefixtures("a_thousand_builds")
async def test_one_is_found_with_its_artifact(admin: Desk) -> None:
    for text in FILTERS.values():
        request = models_pb.ListVersionsRequest(parent=MODEL, filter=text(SOUGHT))
        (found,) = (await admin.call(admin.models.ListVersions, request)).versions
        assert found.name == f"{MODEL}/versions/{SOUGHT}"
        assert found.artifact == f"{PROJECT}/artifacts/{SOUGHT:064x}"
        assert found.build == _build(SOUGHT)
