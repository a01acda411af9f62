"""`check-state`: silent about a sound installation, and it finds what must never be."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.builder.settings import BuilderSettings
from services.common.sql.checks import Finding
from services.suite.check_state import check_state, in_folder
from tests.contract.builder.stack import running
from tests.contract.metadata.desk import eventually

MODELYARD = str(Path(sys.executable).with_name("modelyard"))


@pytest.fixture
async def kept(tmp_path: Path) -> Path:
    """The folder of a suite that stopped, with versions, aliases, a run and a trail."""
    data, tree = tmp_path / "data", tmp_path / "tree"
    data.mkdir()
    tree.mkdir()
    (tree / "weights.bin").write_bytes(bytes(range(256)) * 64)
    builder = BuilderSettings(database_url=f"sqlite:///{data / 'builder.db'}")
    async with running(data, builder=builder, calendar=now) as stack, stack.client() as client:
        await client.models.create("churn")
        artifact = await client.artifacts.push(tree)
        for _ in range(2):
            await client.versions.create("churn", artifact=artifact.name)
        await client.aliases.set("churn", "production", version=1)

        async def is_sealed() -> bool:
            return len(await client.audit.list(filter='method : "UpdateAlias"')) == 1

        await eventually(is_sealed)
    assert found(data) == []
    return data


def found(data: Path) -> list[Finding]:
    return list(check_state(in_folder(data)))


def now() -> datetime:
    return datetime.now(UTC)


def times(data: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in data.glob("**/*.db")}


def sql(database: str, *statements: str) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        with sqlite3.connect(data / database) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount > 0, statement
        connection.close()

    return damage


def lose_a_pack(data: Path) -> None:
    _pack(data).unlink()


def cut_a_pack(data: Path) -> None:
    path = _pack(data)
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(data: Path) -> None:
    path = _pack(data)
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)


def leave_a_pack(data: Path) -> None:
    shutil.copy(_pack(data), _pack(data).with_name("f" * 32))


def _pack(data: Path) -> Path:
    return max((p for p in (data / "artifact/packs").rglob("*") if p.is_file()), key=_size)


def _size(path: Path) -> int:
    return path.stat().st_size


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("bytes", lose_a_pack),
    ("packs", cut_a_pack),
    ("bytes", flip_a_bit),
    ("packs", leave_a_pack),
    ("bytes", sql("artifact/artifact.db", "DELETE FROM holds")),
    ("bytes", sql("artifact/artifact.db", "DELETE FROM chunks")),
    ("bytes", sql("artifact/artifact.db", "DELETE FROM artifacts")),
    ("numbers", sql("metadata.db", "UPDATE models SET last_number = 1")),
    ("aliases", sql("metadata.db", "UPDATE versions SET delete_time = 1 WHERE number = 1")),
    ("aliases", sql("metadata.db", "UPDATE alias_changes SET new_number = 2")),
    ("versions", sql("metadata.db", "UPDATE versions SET ready_time = NULL WHERE number = 2")),
    ("ledger", sql("metadata.db", "DELETE FROM events WHERE sequence = 2")),
    ("ledger", sql("metadata.db", "UPDATE event_counters SET sequence = sequence + 1")),
    ("request ids", sql("metadata.db", "UPDATE answers SET answer = x''")),
    ("audit", sql("metadata.db", "UPDATE audit_entries SET actor = 'x' WHERE sequence = 2")),
    ("audit", sql("metadata.db", "DELETE FROM audit_entries WHERE sequence = 3")),
    (
        "builds",
        sql(
            "metadata.db",
            "UPDATE versions SET build = 'projects/default/builds/b', run = ''",
        ),
    ),
]


async def test_each_damage_is_found_for_what_it_is(kept: Path, tmp_path: Path) -> None:
    missed = []
    for number, (check, damage) in enumerate(DAMAGES):
        copy = tmp_path / f"damaged-{number}"
        shutil.copytree(kept, copy)
        damage(copy)
        checks = {finding.check for finding in found(copy)}
        if check not in checks:
            missed.append((number, check, checks))
    assert missed == []


async def test_the_command_prints_a_table_and_its_status_says_so(kept: Path) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [MODELYARD, "check-state", "--data", str(kept), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    before = times(kept)
    assert (run().returncode, run("-o", "json").stdout) == (0, "[]\n")
    assert times(kept) == before
    flip_a_bit(kept)
    assert "has other bytes" in run().stdout
    damaged = run("-o", "json")
    assert damaged.returncode == 1
    assert {finding["check"] for finding in json.loads(damaged.stdout)} == {"bytes"}
