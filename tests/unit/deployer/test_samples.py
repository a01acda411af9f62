"""Rows that model servers wrote: gathered, summed up, sent when due, never without bound."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from modelyard.metadata.v1 import dataset_pb2

from services.common.errors import Reason, ServiceError
from services.common.names import DeploymentName
from services.deployer.agent import sampling
from services.deployer.agent.control_plane import ControlPlane
from services.deployer.agent.profiling import profile
from services.deployer.agent.sampling import Samples
from services.deployer.domain import AssignedVariant, Assignment, Sample
from services.deployer.rollouts.plans import Sampling, ServingSpec

NAME = DeploymentName("p", "production", "churn")
SPEC = ServingSpec(sampling=Sampling(1.0, rows_per_version=10, interval_seconds=60))
VARIANT = AssignedVariant(1, "projects/p/models/churn/versions/1", "a", 100, "", serving=SPEC)
ASSIGNED: Mapping[DeploymentName, Assignment] = {NAME: Assignment(1, (VARIANT,))}


class Deployer(ControlPlane):
    """Takes samples, or refuses them."""

    def __init__(self) -> None:
        self.taken: list[Sample] = []
        self.refusal: Reason | None = None

    async def record_sample(self, name: DeploymentName, revision: int, sample: Sample) -> None:
        if self.refusal is not None:
            raise ServiceError(self.refusal, "no")
        self.taken.append(sample)


class Spool:
    """A folder that a model server writes to, and what gathers from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deployer = Deployer()
        self.samples = Samples(self.deployer, lambda _: sorted(folder.iterdir()))
        self.written = 0

    def write(self, rows: int, *, time: float = 1_000.0) -> None:
        self.written += 1
        line = {
            "time": time,
            "rows": rows,
            "types": {"x": "float64"},
            "columns": {"x": [float(number) for number in range(rows)]},
        }
        (self.folder / f"{self.written:04}.json").write_text(json.dumps(line))

    async def look(self, now: float, assigned: Any = ASSIGNED) -> list[int]:
        """Return how many rows each sample had that was sent now."""
        before = len(self.deployer.taken)
        await self.samples.look(assigned, now)
        assert not list(self.folder.iterdir())
        return [sample.row_count for sample in self.deployer.taken[before:]]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


async def test_samples_are_sent_when_they_are_many_or_old(spool: Spool) -> None:
    spool.write(6)
    assert await spool.look(1_010) == []
    spool.write(6)
    assert await spool.look(1_011) == [10]  # and two rows more than were wanted
    spool.write(3)
    assert await spool.look(1_059) == []
    assert await spool.look(1_061) == [3]
    assert await spool.look(2_000) == []


async def test_what_a_variant_left_behind_is_sent(spool: Spool) -> None:
    spool.write(2)
    assert await spool.look(1_001) == []
    assert await spool.look(1_002, {}) == [2]


async def test_samples_wait_for_the_deployer_and_are_bounded(spool: Spool) -> None:
    spool.deployer.refusal = Reason.SERVICE_UNAVAILABLE
    for _ in range(5):
        spool.write(8)
        assert await spool.look(1_001) == []
    spool.deployer.refusal = None
    assert await spool.look(1_002) == [10]
    spool.deployer.refusal = Reason.RIGHT_MISSING
    spool.write(10)
    assert await spool.look(1_003) == []
    spool.deployer.refusal = None
    assert await spool.look(1_004) == []  # what was refused is given up


async def test_a_file_that_cannot_be_read_harms_nothing(spool: Spool) -> None:
    (spool.folder / "0000.json").write_text("no json")
    spool.write(10)
    assert await spool.look(1_001) == [10]
    unsampled = {NAME: Assignment(1, (replace(VARIANT, serving=ServingSpec()),))}
    spool.samples = Samples(spool.deployer, lambda _: pytest.fail("nobody is to look"))
    await spool.samples.look(unsampled, 1_002)


def test_profiles_are_exact() -> None:
    chance = random.Random(7)  # noqa: S311
    numbers = [chance.gauss(0, 1) for _ in range(1_000)]
    found = profile("x", "float64", [*numbers, None], 1_001).profile
    assert (found.count, found.null_count, found.distinct_count) == (1_001, 1, 1_000)
    ordered = sorted(numbers)
    assert list(found.quantiles)[:2] == [ordered[0], ordered[9]]
    assert (found.quantiles[50], found.quantiles[100]) == (ordered[499], ordered[999])
    assert not found.top_values
    flags = profile("f", "bool", [True, False, True], 3).profile
    assert flags.kind == dataset_pb2.COLUMN_KIND_BOOLEAN
    assert [(top.value, top.count) for top in flags.top_values] == [("true", 2), ("false", 1)]
    few = profile("n", "int64", [3, 3, 1], 3).profile
    assert [(top.value, top.count) for top in few.top_values] == [("3.0", 2), ("1.0", 1)]
    assert profile("e", "float64", [], 4).profile.null_count == 4


def test_rows_of_very_many_columns_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MAX_CELLS", 20_000)
    rows = sampling.Rows(Sampling(1.0, rows_per_version=100_000))
    names = [f"t{number}" for number in range(100)]
    texts = [f"{number:04}" * 60 for number in range(100)]
    line = {
        "time": 1.0,
        "rows": len(texts),
        "types": dict.fromkeys(names, "str"),
        "columns": dict.fromkeys(names, texts),
    }
    for _ in range(3):
        rows.add(line)
    assert rows.count == 200
    assert rows.is_due(1.0)
    sample = rows.sample()
    assert len(sample.columns) < 2 * sampling.VALUE_BYTES
    schema = dataset_pb2.DatasetVersion.FromString(sample.columns).schema
    assert len(schema) == len(names)
    assert schema[0].profile.top_values
    assert not schema[-1].profile.top_values
