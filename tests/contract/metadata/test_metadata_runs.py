"""Runs: ingested exactly once, in order, whatever breaks; listed by what they found."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import grpc
import pytest
from modelyard.common.v1.failure_pb2 import Failure
from modelyard.metadata.v1 import run_pb2
from modelyard.metadata.v1 import run_service_pb2 as pb

from services.metadata.settings import MetadataSettings
from tests.contract.artifact.yard import reason
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, eventually, metadata_running

RUNNING, SUCCEEDED = run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_SUCCEEDED
FAILED, CANCELLED = run_pb2.RUN_STATE_FAILED, run_pb2.RUN_STATE_CANCELLED


def batch(run: str, start: int, end: int, *, writer: str = "w") -> pb.IngestRunDataRequest:
    return pb.IngestRunDataRequest(run=run, writer=writer, start_sequence=start, end_sequence=end)


def points(run: str, start: int, values: list[float], key: str = "loss") -> pb.IngestRunDataRequest:
    """Make a batch whose sequence counts its points."""
    end = start + len(values)
    message = batch(run, start, end)
    message.metrics.add(key=key, steps=range(start, end), times_us=range(start, end), values=values)
    return message


async def get(desk: Desk, name: str) -> run_pb2.Run:
    found: run_pb2.Run = (await desk.call(desk.runs.GetRun, pb.GetRunRequest(name=name))).run
    return found


async def series(desk: Desk, run: str, key: str = "loss", *, size: int = 0) -> list[Any]:
    found: list[Any] = []
    request = pb.ListMetricPointsRequest(run=run, key=key, page_size=size)
    while True:
        page = await desk.call(desk.runs.ListMetricPoints, request)
        found += zip(page.points.steps, page.points.values, strict=True)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def refused(desk: Desk, *batches: pb.IngestRunDataRequest) -> tuple[Any, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.ingest(*batches)
    return reason(caught.value)


async def finish(desk: Desk, run: str, state: Any) -> run_pb2.Run:
    request = pb.FinishRunRequest(name=run, state=state)
    found: run_pb2.Run = (await desk.call(desk.runs.FinishRun, request)).run
    return found


async def listed(desk: Desk, **fields: Any) -> list[str]:
    names: list[str] = []
    request = pb.ListRunsRequest(parent=MODEL, **fields)
    while True:
        page = await desk.call(desk.runs.ListRuns, request)
        names += [run.name.rpartition("/")[2] for run in page.runs]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


async def test_a_run_keeps_all_its_ingredients(admin: Desk) -> None:
    run = await admin.new_run("first")
    message = batch(run, 0, 10)
    message.params["lr"].float_value = math.nan
    message.params["n"].int_value = -(2**63)
    message.params["on"].bool_value = True
    message.params["text"].string_value = "zwei\nZeilen"
    nested = message.params["list"].list_value.values.add().list_value.values.add()
    nested.float_value = 1.0
    message.tags["team"] = "risk"
    message.code.CopyFrom(run_pb2.CodeSource(commit="abc", dirty=True, diff="-a\n+\x0cb"))
    message.environment.CopyFrom(
        run_pb2.RuntimeEnvironment(
            python_version="3.11.7",
            gpus=["NVIDIA L4"],
            packages=[run_pb2.Package(name="n", version="1")],
        )
    )
    message.datasets.add(role="train", dataset_version=f"{PROJECT}/datasets/d/versions/1")
    message.image = "registry/image@sha256:0"
    message.dropped_point_count = 3
    created = await get(admin, run)
    assert await admin.ingest(message) == [10]
    found = await get(admin, run)
    assert math.isnan(found.params["lr"].float_value)
    params = {key: value for key, value in found.params.items() if key != "lr"}
    assert params == {key: value for key, value in message.params.items() if key != "lr"}
    assert (found.code, found.environment) == (message.code, message.environment)
    assert list(found.datasets) == list(message.datasets)
    assert (found.tags["team"], found.image) == ("risk", message.image)
    assert (found.dropped_point_count, found.state) == (3, RUNNING)
    assert found.etag != created.etag
    page = await admin.call(admin.runs.ListRuns, pb.ListRunsRequest(parent=MODEL))
    assert (page.runs[0].code.commit, page.runs[0].code.diff) == ("abc", "")
    assert not page.runs[0].environment.packages


async def test_every_point_is_kept_exactly_once(admin: Desk) -> None:
    run = await admin.new_run()
    values = [0.5, math.nan, math.inf, -math.inf, 0.25]
    batches = [points(run, 0, values[:2]), points(run, 2, values[2:])]
    assert await admin.ingest(*batches) == [2, 5]
    # A client that saw no acknowledgement sends them again, and goes on.
    assert await admin.ingest(*batches, batch(run, 5, 5), points(run, 5, [0.125])) == [5, 5, 5, 6]
    found = await series(admin, run, size=4)
    assert [step for step, _ in found] == [0, 1, 2, 3, 4, 5]
    assert math.isnan(found[1][1])
    assert [value for _, value in found[2:]] == [math.inf, -math.inf, 0.25, 0.125]
    code, name, metadata = await refused(admin, points(run, 9, [1.0]))
    assert (code, name) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_GAP")
    assert metadata == {"acknowledged_sequence": "6"}
    position = pb.GetIngestPositionRequest(run=run, writer="w")
    answer = await admin.call(admin.runs.GetIngestPosition, position)
    assert answer.acknowledged_sequence == 6
    position.writer = "other"
    answer = await admin.call(admin.runs.GetIngestPosition, position)
    assert answer.acknowledged_sequence == 0
    summary = (await get(admin, run)).metrics[0]
    assert (summary.key, summary.count, summary.last, summary.last_step) == ("loss", 6, 0.125, 5)
    assert (summary.min, summary.max) == (-math.inf, math.inf)


async def test_the_last_value_goes_by_step(admin: Desk) -> None:
    run = await admin.new_run()
    first = batch(run, 0, 1)
    first.metrics.add(key="a", steps=[5, 5, -3], times_us=[1, 2, 3], values=[1.0, 2.0, 9.0])
    first.metrics.add(key="nan", steps=[0], times_us=[0], values=[math.nan])
    second = batch(run, 1, 2)
    second.metrics.add(key="a", steps=[4], times_us=[4], values=[7.0])
    await admin.ingest(first, second)
    a, nan = (await get(admin, run)).metrics
    assert (a.count, a.last, a.last_step, a.min, a.max) == (4, 2.0, 5, 1.0, 9.0)
    assert not nan.HasField("min")
    assert not nan.HasField("max")
    assert await series(admin, run, "a") == [(-3, 9.0), (4, 7.0), (5, 1.0), (5, 2.0)]
    assert await series(admin, run, "none") == []


async def test_a_parameter_never_changes(admin: Desk) -> None:
    run = await admin.new_run()
    first = batch(run, 0, 1)
    first.params["lr"].float_value = 1.0
    await admin.ingest(first)
    other = points(run, 1, [0.5])
    other.params["lr"].int_value = 1
    other.params["new"].int_value = 1
    other.tags["t"] = "x"
    code, name, metadata = await refused(admin, other)
    assert (code, name) == (grpc.StatusCode.FAILED_PRECONDITION, "PARAM_CHANGED")
    assert metadata == {"key": "lr"}
    found = await get(admin, run)
    assert (list(found.params), dict(found.tags), list(found.metrics)) == (["lr"], {}, [])
    other.params["lr"].float_value = 1.0
    assert await admin.ingest(other) == [2]


async def test_writers_of_one_run_do_not_mix(admin: Desk) -> None:
    run = await admin.new_run()

    async def write(writer: str) -> None:
        batches = []
        for start in range(10):
            message = batch(run, start, start + 1, writer=writer)
            message.metrics.add(key="loss", steps=[start], times_us=[0], values=[float(start)])
            batches.append(message)
        assert await admin.ingest(*batches) == list(range(1, 11))

    await asyncio.gather(*(write(f"w{number}") for number in range(4)))
    assert (await get(admin, run)).metrics[0].count == 40
    assert len(await series(admin, run)) == 40


async def test_a_stream_belongs_to_one_run_and_to_those_who_may_write(admin: Desk) -> None:
    run, other = await admin.new_run(), await admin.new_run()
    assert (await refused(admin, batch(run, 0, 1), batch(other, 0, 1)))[1] == "INVALID_FIELD"
    assert (await refused(admin, batch(f"{MODEL}/runs/none", 0, 1)))[1] == "RESOURCE_NOT_FOUND"
    viewer = await admin.new_caller("user:vi", {"project": PROJECT, "role": 1})  # type: ignore[arg-type]
    assert (await refused(viewer, batch(run, 0, 1)))[1] == "RIGHT_MISSING"
    uneven, late = batch(run, 0, 1), batch(run, 0, 1)
    uneven.metrics.add(key="loss", steps=[1, 2], times_us=[1], values=[1.0])
    late.metrics.add(key="loss", steps=[1], times_us=[2**63], values=[1.0])
    empty, nul = batch(run, 0, 1), batch(run, 0, 1)
    empty.params["x"].Clear()
    nul.params["a\0b"].int_value = 1
    for odd in (uneven, late, empty, nul, batch(run, 2, 1), batch(run, 0, 1, writer="W!")):
        assert (await refused(admin, odd))[1] == "INVALID_FIELD"


async def test_runs_end_once(admin: Desk) -> None:
    run = await admin.new_run("first")
    taken = pb.CreateRunRequest(parent=MODEL, run_id="first")
    assert (await admin.refused(admin.runs.CreateRun, taken))[1] == "RESOURCE_EXISTS"
    ended = await finish(admin, run, SUCCEEDED)
    assert ended.state == SUCCEEDED
    assert await finish(admin, run, SUCCEEDED) == ended
    again = pb.FinishRunRequest(name=run, state=FAILED)
    assert await admin.refused(admin.runs.FinishRun, again) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_STATE",
    )
    odd = pb.FinishRunRequest(name=run, state=RUNNING)
    assert (await admin.refused(admin.runs.FinishRun, odd))[1] == "INVALID_FIELD"
    other = await admin.new_run()
    failing = pb.FinishRunRequest(
        name=other, state=FAILED, failure=Failure(reason="EXCEPTION", message="a\nb")
    )
    failed = (await admin.call(admin.runs.FinishRun, failing)).run
    assert (failed.state, failed.failure.reason) == (FAILED, "EXCEPTION")


async def test_a_silent_run_counts_as_failed_until_it_speaks(
    settings: MetadataSettings, artifact_port: int
) -> None:
    quick = replace(settings, heartbeat_seconds=0.6)
    async with (
        metadata_running(quick, artifact_port) as house,
        grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel,
    ):
        admin = Desk(channel, house, house.secret("admin"))
        runs = [await admin.new_run(f"run-{number}") for number in range(2)]

        async def silent() -> bool:
            return all([(await get(admin, run)).state == FAILED for run in runs])

        await eventually(silent)
        assert (await get(admin, runs[0])).failure.reason == "HEARTBEAT_LOST"
        await admin.ingest(points(runs[0], 0, [1.0]))
        revived = await get(admin, runs[0])
        assert (revived.state, revived.HasField("end_time")) == (RUNNING, False)
        assert (await finish(admin, runs[1], CANCELLED)).state == CANCELLED


async def test_lists_are_filtered_and_ordered(admin: Desk) -> None:
    names = ["alpha", "bravo", "charlie"]
    for number, name in enumerate(names):
        run = await admin.new_run(name)
        message = points(run, 0, [float(number), 5.0 - number], key="val.f1")
        message.params["depth"].int_value = number
        message.params["kind"].string_value = "tree" if number else "linear"
        message.tags["team"] = "risk"
        await admin.ingest(message)
    await finish(admin, f"{MODEL}/runs/bravo", SUCCEEDED)
    metric = 'metrics["val.f1"]'
    assert await listed(admin) == names[::-1]
    assert await listed(admin, page_size=1) == names[::-1]
    assert await listed(admin, order_by=f"{metric} desc", page_size=2) == names
    assert await listed(admin, order_by=f"{metric}.min", page_size=1) == names
    assert await listed(admin, order_by=f"{metric}.max", page_size=1) == names[::-1]
    assert await listed(admin, order_by="end_time", page_size=1) == ["bravo", "alpha", "charlie"]
    assert await listed(admin, filter=f"{metric} > 3.5") == ["bravo", "alpha"]
    assert await listed(admin, filter=f"{metric}.min >= 1") == ["charlie", "bravo"]
    assert await listed(admin, filter='params.kind = "tree" AND params.depth < 2') == ["bravo"]
    assert await listed(admin, filter='state = SUCCEEDED OR id = "alpha"') == ["bravo", "alpha"]
    assert await listed(admin, filter='tags.team = "risk" AND NOT state = RUNNING') == ["bravo"]
    hostile = [
        'id = "a\\u0000b"',
        'tags["\\u0000"] = "x"',
        "params.depth = 99999999999999999999",
        "metrics.f1 > -99999999999999999999",
        "metrics.f1 = 1e999",
        'create_time > "9999-12-31T23:59:59Z"',
        'create_time > "0001-01-01T00:00:00+14:00"',
        'tags["❤"] = "❤" OR creator:"%_"',
    ]
    for text in hostile:
        request = pb.ListRunsRequest(parent=MODEL, filter=text)
        try:
            await admin.call(admin.runs.ListRuns, request)
        except grpc.aio.AioRpcError as error:
            assert reason(error)[1] == "INVALID_FILTER", text  # noqa: PT017 - either is right
    odd = pb.ListRunsRequest(parent=MODEL, order_by="metrics.f1.avg")
    assert (await admin.refused(admin.runs.ListRuns, odd))[1] == "INVALID_ORDER"
