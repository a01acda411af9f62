"""Shipping as a library, as the worker does it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard._transport.channel import Line, open_channel
from modelyard._transport.config import ConnectionSettings
from modelyard.errors import UnavailableError
from modelyard.metadata.v1 import run_pb2
from modelyard.tracking.run import ActiveRun
from modelyard.tracking.shipper import SpoolShipper, give_back
from modelyard.tracking.spool import Appender, create_spool, read_position

from tests.unit.tracking.conftest import Server

RUN = "projects/p/models/m/runs/r-1"


@pytest.fixture
def spool(tmp_path: Path, server: Server) -> Path:
    server.runs.runs[RUN] = run_pb2.Run(name=RUN, state=run_pb2.RUN_STATE_RUNNING)
    return create_spool(tmp_path / "spools", "r-1", {})


@pytest.fixture
def shipper(spool: Path, server: Server) -> Iterator[SpoolShipper]:
    line = Line(ConnectionSettings(server.address), open_channel)
    yield SpoolShipper(
        spool,
        line,
        run=RUN,
        writer="worker-1",
        metadata=lambda: (("authorization", "Bearer w"),),
    )
    line.channel.close()


def test_it_says_what_it_shipped_once(spool: Path, shipper: SpoolShipper, server: Server) -> None:
    run = ActiveRun(RUN, Appender(spool))
    run.log_metrics({"a": 1.0, "b": 2.0}, step=7)
    run.log_dataset("train", {"x": [1, 2]})
    shipped = shipper.ship_available()
    assert [(c.key, list(c.steps), list(c.values)) for c in shipped.metrics] == [
        ("a", [7], [1.0]),
        ("b", [7], [2.0]),
    ]
    assert shipped.position == read_position(spool) > 0
    assert shipper.ship_available().metrics == ()
    assert server.only_run().datasets[0].dataset_version.startswith("projects/p/datasets/m-train/")
    assert server.runs.credentials == {"Bearer w"}


def test_over_broken_streams_each_point_is_said_once(
    spool: Path, shipper: SpoolShipper, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelyard.tracking.batches.MAX_BATCH_BYTES", 1000)
    server.runs.drop_every = 4
    run = ActiveRun(RUN, Appender(spool))
    for step in range(1000):
        run.log_metric("m", step, step=step)
    said: list[int] = []
    failures = 0
    while len(said) < 1000:
        try:
            said += [s for column in shipper.ship_available().metrics for s in column.steps]
        except UnavailableError:
            failures += 1
    assert failures > 0
    assert said == list(range(1000))
    assert server.runs.points["m"] == [(step, float(step)) for step in range(1000)]


def test_a_heartbeat_says_how_many_points_were_dropped(
    spool: Path, shipper: SpoolShipper, server: Server
) -> None:
    (spool / "dropped").write_bytes(b"...")
    shipper.heartbeat()
    assert server.runs.heartbeats == 1
    assert server.only_run().dropped_point_count == 3


def test_what_was_shipped_is_given_back_to_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"x" * (1 << 20) + b"rest")
    before = file.stat()
    give_back(file, 1 << 20)
    after = file.stat()
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks
    assert file.read_bytes().endswith(b"rest")
