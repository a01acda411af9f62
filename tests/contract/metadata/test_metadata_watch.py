"""Watches: every change once, in order, from where a list or a cursor says."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from modelyard.metadata.v1 import model_pb2, run_pb2
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from services.metadata.settings import MetadataSettings
from tests.contract.metadata.desk import MODEL, PROJECT, Desk, metadata_running

EVERY = f"{PROJECT}/models/-"
WRITERS = 16
MODELS_EACH = 4
SECONDS = 20.0


async def watch(desk: Desk, cursor: str, count: int, **fields: Any) -> list[pb.ModelChange]:
    """Return the next so many changes."""
    request = pb.WatchModelsRequest(parent=fields.pop("parent", EVERY), cursor=cursor, **fields)
    call = desk.models.WatchModels(request, metadata=desk.metadata, timeout=SECONDS)
    found: list[pb.ModelChange] = []
    async for message in call:
        found += message.changes
        if len(found) >= count:
            call.cancel()
            return found
    raise AssertionError("the stream ended")


async def cursor_of(desk: Desk) -> str:
    listed = await desk.call(desk.models.ListModels, pb.ListModelsRequest(parent=PROJECT))
    cursor: str = listed.watch_cursor
    return cursor


async def create(desk: Desk, model: str) -> None:
    await desk.call(
        desk.models.CreateModel,
        pb.CreateModelRequest(parent=PROJECT, model_id=model, model=model_pb2.Model()),
    )


async def test_concurrent_writers_are_all_heard_in_order(admin: Desk) -> None:
    cursor = await cursor_of(admin)
    names = {f"m-{w}-{m}" for w in range(WRITERS) for m in range(MODELS_EACH)}
    heard = asyncio.ensure_future(watch(admin, cursor, 2 * len(names)))

    async def write(writer: int) -> None:
        for number in range(MODELS_EACH):
            await create(admin, f"m-{writer}-{number}")
            changed = model_pb2.Model(name=f"{PROJECT}/models/m-{writer}-{number}", description="d")
            await admin.call(admin.models.UpdateModel, pb.UpdateModelRequest(model=changed))

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    changes = await heard
    kinds: dict[str, list[int]] = {}
    for change in changes:
        kinds.setdefault(change.name.rpartition("/")[2], []).append(change.type)
    expected = [pb.MODEL_CHANGE_TYPE_MODEL_CREATED, pb.MODEL_CHANGE_TYPE_MODEL_UPDATED]
    assert kinds == dict.fromkeys(names, expected)
    again = await watch(admin, cursor, 2 * len(names))
    assert [change.name for change in again] == [change.name for change in changes]
    rest = await watch(admin, changes[99].cursor, 2 * len(names) - 100)
    assert [change.cursor for change in rest] == [change.cursor for change in changes[100:]]


async def test_filters_and_parents_choose(admin: Desk, artifact: str) -> None:
    cursor = await cursor_of(admin)
    await create(admin, "other")
    made = await admin.new_version(artifact, aliases=("champion",))
    of_alias = await watch(admin, cursor, 1, filter='alias = "champion"')
    assert (of_alias[0].new_version, of_alias[0].alias.version) == (made.name, made.name)
    ready = await watch(admin, cursor, 1, parent=MODEL, filter="type = VERSION_READY")
    assert ready[0].version.name == made.name
    assert not ready[0].version.card
    for odd, reason in (("nonsense = 1", "INVALID_FILTER"), ("type = NONE", "INVALID_FILTER")):
        request = pb.WatchModelsRequest(parent=EVERY, filter=odd)
        assert await refused(admin, request) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    garbled = pb.WatchModelsRequest(parent=EVERY, cursor="garbled")
    assert (await refused(admin, garbled))[1] == "INVALID_CURSOR"


async def refused(desk: Desk, request: pb.WatchModelsRequest) -> tuple[grpc.StatusCode, str]:
    from tests.contract.artifact.yard import reason

    try:
        async for _ in desk.models.WatchModels(request, metadata=desk.metadata, timeout=SECONDS):
            raise AssertionError("not refused")
    except grpc.aio.AioRpcError as error:
        return reason(error)[:2]
    raise AssertionError("not refused")


async def test_runs_are_watched_from_their_list(admin: Desk) -> None:
    listed = await admin.call(admin.runs.ListRuns, runs_pb.ListRunsRequest(parent=EVERY))
    name = await admin.new_run()
    state = run_pb2.RUN_STATE_SUCCEEDED
    await admin.call(admin.runs.FinishRun, runs_pb.FinishRunRequest(name=name, state=state))
    request = runs_pb.WatchRunsRequest(
        parent=MODEL, cursor=listed.watch_cursor, filter="state = SUCCEEDED"
    )
    call = admin.runs.WatchRuns(request, metadata=admin.metadata, timeout=SECONDS)
    async for message in call:
        if message.changes:
            change = message.changes[0]
            assert change.type == runs_pb.RUN_CHANGE_TYPE_ENDED
            assert (change.name, change.run.state) == (name, state)
            call.cancel()
            return


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_one_replica_tells_of_what_another_did(
    admin: Desk, settings: MetadataSettings, artifact_port: int
) -> None:
    cursor = await cursor_of(admin)
    async with (
        metadata_running(settings, artifact_port) as replica,
        grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}") as channel,
    ):
        other = Desk(channel, replica, admin.credential)
        heard = asyncio.ensure_future(watch(other, cursor, 1))
        await create(admin, "late")
        assert (await heard)[0].name == f"{PROJECT}/models/late"
