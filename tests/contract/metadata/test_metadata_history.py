"""Metric points: kept bit by bit, in order, whatever sizes they come in; drawn true to form."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient, Client
from modelyard.errors import FailedPreconditionError
from modelyard.metadata.v1 import model_pb2
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as pb

from services.metadata.runs import points_store
from services.metadata.settings import MetadataSettings
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, metadata_running
from tests.contract.metadata.test_metadata_runs import batch, get, points, refused

Point = tuple[int, int, bytes]


async def history(desk: Desk, run: str, key: str, *, size: int = 0) -> list[Point]:
    """Read a metric page by page; values as their bytes, for NaN is not equal to itself."""
    found: list[Point] = []
    request = pb.ListMetricPointsRequest(run=run, key=key, page_size=size)
    while True:
        page = await desk.call(desk.runs.ListMetricPoints, request)
        column = page.points
        assert not size or len(column.steps) <= size
        found += [
            (step, time, struct.pack("<d", value))
            for step, time, value in zip(column.steps, column.times_us, column.values, strict=True)
        ]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def sample(desk: Desk, run: str, *keys: str, **fields: Any) -> dict[str, Any]:
    request = pb.SampleMetricPointsRequest(run=run, keys=keys, **fields)
    answer = await desk.call(desk.runs.SampleMetricPoints, request)
    return {one.points.key: one for one in answer.samples}


@pytest.mark.parametrize("in_order", [True, False])
async def test_points_of_all_sizes_stay_in_order(
    admin: Desk, monkeypatch: pytest.MonkeyPatch, *, in_order: bool
) -> None:
    """Blocks become chunks, small chunks larger ones, and a point is never lost or moved."""
    for name, value in {"DIRECT": 40, "CHUNK": 64, "BLOCKS": 4, "SMALL_CHUNKS": 3}.items():
        monkeypatch.setattr(points_store, name, value)
    chance = random.Random(7)  # noqa: S311 - the same sizes every time
    run, odd = await admin.new_run(), [math.nan, math.inf, -math.inf, -0.0, 5e-324]
    logged: dict[str, list[Point]] = {"a": [], "b": []}
    time = 0
    batches = []
    for number in range(60):
        message = batch(run, number, number + 1)
        for key in ["a", "b"] if number % 3 else ["a"]:
            count = chance.choice([1, 1, 2, 7, 50, 100])
            first = len(logged[key])
            steps = [first + i if in_order else chance.randrange(-50, 50) for i in range(count)]
            times = list(range(time, time := time + count))
            values = [chance.choice([*odd, chance.random()]) for _ in range(count)]
            message.metrics.add(key=key, steps=steps, times_us=times, values=values)
            packed = [struct.pack("<d", value) for value in values]
            logged[key] += zip(steps, times, packed, strict=True)
        batches.append(message)
    # Each on a stream of its own, then many at once: one transaction each, then few.
    for message in batches[:20]:
        await admin.ingest(message)
    assert (await admin.ingest(*batches))[-1] == 60
    for key, expected in logged.items():
        expected.sort(key=lambda point: point[0])  # stable: then in order of logging
        assert await history(admin, run, key) == expected
        assert await history(admin, run, key, size=37) == expected
    counts = {metric.key: metric.count for metric in (await get(admin, run)).metrics}
    assert counts == {key: len(expected) for key, expected in logged.items()}


async def test_a_chart_keeps_peaks_ends_and_gaps(admin: Desk) -> None:
    run, count = await admin.new_run(), 100_000
    values = [math.sin(step / 5_000) for step in range(count)]
    values[33_333], values[77_777] = 9.0, -9.0
    for start in range(0, count, 10_000):
        await admin.ingest(points(run, start, values[start : start + 10_000]))
    await admin.ingest(points(run, count, [1.0, math.nan, 2.0], key="few"))
    found = await sample(admin, run)
    assert set(found) == {"few", "loss"}
    assert (len(found["few"].points.steps), found["few"].point_count) == (3, 3)
    chart = found["loss"].points
    assert found["loss"].point_count == count
    assert len(chart.steps) <= 1_000
    assert list(chart.steps) == sorted(set(chart.steps))
    assert {0, 33_333, 77_777, count - 1} <= set(chart.steps)
    assert all(values[step] == value for step, value in zip(chart.steps, chart.values, strict=True))
    part = await sample(admin, run, "loss", start_step=50_000, end_step=50_010, max_points=4)
    assert list(part["loss"].points.steps)[0::3] == [50_000, 50_009]
    assert part["loss"].point_count == 10
    assert await sample(admin, run, "none") == {}
    assert await sample(admin, run, "loss", start_step=count) == {}
    odd = pb.SampleMetricPointsRequest(run=run, max_points=3)
    assert (await admin.refused(admin.runs.SampleMetricPoints, odd))[1] == "INVALID_FIELD"


async def test_a_gap_stays_a_gap(admin: Desk) -> None:
    run = await admin.new_run()
    values = [math.nan if 400 <= step < 600 else float(step) for step in range(1_000)]
    await admin.ingest(points(run, 0, values))
    chart = (await sample(admin, run, max_points=50))["loss"].points
    gap = [s for s, value in zip(chart.steps, chart.values, strict=True) if math.isnan(value)]
    assert gap
    assert all(400 <= step < 600 for step in gap)
    assert len(chart.steps) <= 50


async def test_a_bad_batch_fails_alone(admin: Desk) -> None:
    """Streams of many runs and writers end up in common transactions."""
    runs = [await admin.new_run() for _ in range(4)]
    first = batch(runs[0], 0, 1, writer="param")
    first.params["lr"].float_value = 1.0
    await admin.ingest(first)

    async def bad(number: int) -> str:
        message = points(runs[number % 4], 5, [1.0]) if number % 2 else batch(runs[0], 1, 2)
        message.params["lr"].int_value = 1
        message.writer = f"bad-{number}" if number % 2 else "param"
        return (await refused(admin, message))[1]

    async def good(number: int) -> list[int]:
        messages = [points(runs[number % 4], start, [1.0]) for start in range(5)]
        for message in messages:
            message.writer = f"good-{number}"
        return await admin.ingest(*messages)

    answers = await asyncio.gather(
        *(good(number) for number in range(16)), *(bad(number) for number in range(16))
    )
    assert answers[:16] == [[1, 2, 3, 4, 5]] * 16
    assert set(answers[16:]) == {"SEQUENCE_GAP", "PARAM_CHANGED"}
    for run in runs:
        assert (await get(admin, run)).metrics[0].count == 20


async def test_a_goal_is_set_where_there_is_none(admin: Desk) -> None:
    run = await admin.new_run()
    minimize, maximize = model_pb2.METRIC_GOAL_MINIMIZE, model_pb2.METRIC_GOAL_MAXIMIZE
    first, second = points(run, 0, [2.0, 1.0, 3.0]), points(run, 3, [1.0], key="f1")
    first.metric_goals["loss"] = minimize
    second.metric_goals["loss"] = maximize
    await admin.ingest(first, second)
    f1, loss = (await get(admin, run)).metrics
    assert (loss.goal, loss.best) == (minimize, 1.0)
    assert (f1.goal, f1.HasField("best")) == (model_pb2.METRIC_GOAL_UNSPECIFIED, False)
    model = await admin.call(admin.models.GetModel, models_pb.GetModelRequest(name=MODEL))
    assert dict(model.model.metric_goals) == {"loss": minimize}


def client_of(kind: Any, desk: Desk) -> Any:
    return kind(f"127.0.0.1:{desk.house.port}", token=desk.credential, project="default")


async def test_a_writer_logs_what_is_acknowledged(admin: Desk) -> None:
    run = await admin.new_run()

    def write() -> None:
        with client_of(Client, admin) as client, client.runs.writer(run) as writer:
            for step in range(10):
                writer.log({"loss": step / 2, "acc": step}, step=step, tags={"at": str(step)})
            writer.log({"loss": 9.0}, params={"lr": 0.1}, goals={"loss": "minimize"})
            with pytest.raises(FailedPreconditionError, match="lr"):
                writer.log({"loss": 10.0}, params={"lr": 0.2})
            writer.log_many({"many": [float(i) for i in range(25_000)]})
            assert client.runs.metric_points(run, "many").values == [
                float(i) for i in range(25_000)
            ]
            chart = client.runs.sample_metrics(run, "many", max_points=100)["many"]
            assert (len(chart) <= 100, chart.sampled_from) == (True, 25_000)
            assert client.runs.metric_points(run, "loss").steps == [0, *range(10)]

    await asyncio.to_thread(write)
    found = await get(admin, run)
    assert {metric.key: metric.count for metric in found.metrics} == {
        "acc": 10,
        "loss": 11,
        "many": 25_000,
    }
    assert found.tags["at"] == "9"
    async with client_of(AsyncClient, admin) as client, client.runs.writer(run) as writer:
        await asyncio.gather(*(writer.log({"async": step}, step=step) for step in range(20)))
        await writer.log_many({"async": [1.0] * 12_000}, steps=range(20, 12_020))
        with pytest.raises(FailedPreconditionError):
            await writer.log(params={"lr": 1})
        await writer.log({"async": 2.0}, step=12_020)
        assert (await client.runs.metric_points(run, "async")).steps == list(range(12_021))
    assert found.name.startswith(PROJECT)


async def test_two_servers_on_one_database_keep_one_run(
    settings: MetadataSettings, artifact_port: int
) -> None:
    """What a server remembers of a run holds only until the other one writes to it."""
    if settings.database_url.startswith("sqlite"):
        return  # one process at a time: the file is locked
    async with (
        metadata_running(settings, artifact_port) as first,
        metadata_running(settings, artifact_port) as second,
        grpc.aio.insecure_channel(f"127.0.0.1:{first.port}") as one,
        grpc.aio.insecure_channel(f"127.0.0.1:{second.port}") as other,
    ):
        desks = [
            Desk(one, first, first.secret("admin")),
            Desk(other, second, first.secret("admin")),
        ]
        run = await desks[0].new_run()
        for start in range(20):
            assert await desks[start % 2].ingest(points(run, start, [float(start)])) == [start + 1]

        async def write(number: int) -> None:
            for start in range(10):
                message = points(run, start, [1.0], key="both")
                message.writer = f"w{number}"
                await desks[number % 2].ingest(message)

        await asyncio.gather(*(write(number) for number in range(6)))
        assert [step for step, _, _ in await history(desks[0], run, "loss")] == list(range(20))
        assert len(await history(desks[1], run, "both")) == 60
        counts = {metric.key: metric.count for metric in (await get(desks[0], run)).metrics}
        assert counts == {"loss": 20, "both": 60}
