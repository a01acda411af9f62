"""Datasets on the command line, before real services: what is in one, and what became of it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from modelyard import AsyncClient, Client, InvalidArgumentError
from modelyard.metadata.v1 import dataset_pb2

from tests.environments import packages
from tests.rpc.metadata.conftest import Command, Services

# Profiles are an extra; last, so that whatever this environment has already is what is used.
sys.path.append(str(packages("frames")))

EVIL = "\x1b[31m[red]\u202e"


@pytest.fixture(scope="module", autouse=True)
def prices(services: Services) -> None:
    """Two versions of a dataset, of which the second moved."""
    random = np.random.default_rng(7)
    begin = datetime(2026, 5, 1, tzinfo=UTC)
    moments = [begin + timedelta(minutes=minute) for minute in range(1_000)]
    with services.client() as client:
        for shift, cities in ((0.0, ["Köln", EVIL]), (1.0, ["Köln", "Bonn"])):
            columns = {
                "price": random.normal(10 + 3 * shift, 3, 1_000),
                "still": random.normal(size=1_000),
                "city": random.choice(cities, 1_000, p=[0.9, 0.1]).tolist(),
                "when": [moment + timedelta(days=shift) for moment in moments],
                "old" if not shift else "new": np.arange(1_000),
            }
            client.datasets.register("prices", columns, source="s3://shop/prices")


def test_a_version_is_shown_with_its_profile(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    listed = command("datasets", "show", "prices")
    assert [line.split()[0] for line in listed.splitlines()] == ["VERSION", "2", "1"]
    shown = command("datasets", "show", "prices/1")
    assert "s3://shop/prices" in shown
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    assert rows["price"][1:6] == ["float64", "numeric", "1000", "0", "0"]
    assert rows["city"][2] == "categorical"
    assert "Köln (" in shown
    assert rows["when"][7:9] == ["2026-05-01", "00:00"]
    assert "'\\x1b[31m[red]\\u202e' (" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    told = json.loads(command("datasets", "show", "prices/1", "-o", "json"))
    assert len(told["schema"][0]["profile"]["quantiles"]) == 101
    assert "does not exist" in command("datasets", "show", "prices/3", status=1)


def test_versions_are_held_against_each_other(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    told = command("datasets", "compare", "prices/1", "prices/2")
    rows = {line.split()[0]: line for line in told.splitlines()}
    assert "drifted" in rows["price"]
    assert "drifted" not in rows["still"]
    assert "new: 'Bonn'" in rows["city"]
    assert "moments move on" in rows["when"]
    assert "column old removed (int64)" in told
    assert "column new added (int64)" in told
    assert told.splitlines()[-1] == "2 of 4 columns drifted, 1 not compared"
    command("datasets", "compare", "prices/1", "prices/2", "--fail-on-drift", status=1)
    command("datasets", "compare", "prices/1", "prices/1", "--fail-on-drift")
    assert "the same data" in command("datasets", "compare", "prices/1", "prices/1")
    found = json.loads(command("datasets", "compare", "prices/1", "prices/2", "-o", "json"))
    assert found["columns"][0]["drifted"]
    assert found["columns"][0]["psi_threshold"] == 0.1


async def test_clients_compare(services: Services, client: Client) -> None:
    found = client.datasets.compare("prices/1", "projects/default/datasets/prices/versions/2")
    assert found.drifted_column_count == 2
    address, token = services.layout.address, services.token()
    async with AsyncClient(address, token=token, project="default") as patient:
        assert await patient.datasets.compare("prices/1", "prices/2") == found
    with pytest.raises(InvalidArgumentError, match="other"):
        client.datasets.compare("prices/1", "projects/elsewhere/datasets/prices/versions/2")


def test_a_version_without_profiles_is_shown(client: Client, command: Command) -> None:
    columns = [dataset_pb2.Column(name="x", type="int64")]
    client.datasets.create_version("plain", "a" * 64, schema=columns)
    client.datasets.create_version("plain", "b" * 64, schema=columns)
    assert "int64" in command("datasets", "show", "plain/1")
    told = command("datasets", "compare", "plain/1", "plain/2")
    assert "no profile" in told
    assert told.splitlines()[-1] == "0 of 1 columns drifted, 1 not compared"
