"""The upkeep of runs: edited under an etag, deleted, restored, removed for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from modelyard import AsyncClient
from modelyard.metadata.v1 import run_pb2
from modelyard.metadata.v1 import run_service_pb2 as pb

from tests.contract.artifact.yard import reason
from tests.contract.builder.yard import until
from tests.contract.metadata.desk import MODEL, Desk, artifacts_running

REFUSED = grpc.StatusCode.FAILED_PRECONDITION


async def get(desk: Desk, name: str) -> run_pb2.Run:
    found: run_pb2.Run = (await desk.call(desk.runs.GetRun, pb.GetRunRequest(name=name))).run
    return found


async def listed(desk: Desk, **fields: Any) -> list[str]:
    page = await desk.call(desk.runs.ListRuns, pb.ListRunsRequest(parent=MODEL, **fields))
    return [run.name.rpartition("/")[2] for run in page.runs]


async def ended(desk: Desk, run_id: str) -> str:
    name = await desk.new_run(run_id)
    await desk.log(name, f1=0.5)
    request = pb.FinishRunRequest(name=name, state=run_pb2.RUN_STATE_SUCCEEDED)
    await desk.call(desk.runs.FinishRun, request)
    return name


async def test_texts_and_tags_of_a_run_change(admin: Desk) -> None:
    name = await ended(admin, "first")
    before = await get(admin, name)
    wanted = run_pb2.Run(name=name, notes="Best so far.", tags={"team": "risk"}, etag=before.etag)
    changed = (await admin.call(admin.runs.UpdateRun, pb.UpdateRunRequest(run=wanted))).run
    assert (changed.notes, dict(changed.tags)) == ("Best so far.", {"team": "risk"})
    assert changed.etag != before.etag
    assert [metric.key for metric in changed.metrics] == ["f1"]

    stale = pb.UpdateRunRequest(run=wanted)
    assert await admin.refused(admin.runs.UpdateRun, stale) == (
        grpc.StatusCode.ABORTED,
        "ETAG_MISMATCH",
    )
    emptied = pb.UpdateRunRequest(run=run_pb2.Run(name=name), update_mask=FieldMask(paths=["tags"]))
    changed = (await admin.call(admin.runs.UpdateRun, emptied)).run
    assert (changed.notes, dict(changed.tags)) == ("Best so far.", {})
    wrong = pb.UpdateRunRequest(run=wanted, update_mask=FieldMask(paths=["state"]))
    assert (await admin.refused(admin.runs.UpdateRun, wrong))[1] == "INVALID_FIELD"
    absent = pb.UpdateRunRequest(run=run_pb2.Run(name=f"{MODEL}/runs/absent", notes="x"))
    assert (await admin.refused(admin.runs.UpdateRun, absent))[1] == "RESOURCE_NOT_FOUND"


async def test_lists_show_a_change_at_once(admin: Desk) -> None:
    name = await ended(admin, "first")
    shown = [
        (await admin.call(admin.runs.ListRuns, pb.ListRunsRequest(parent=MODEL))).runs[0]
        for _ in range(2)
    ]
    assert shown[0] == shown[1]
    wanted = run_pb2.Run(name=name, display_name="The first", notes="not in lists")
    await admin.call(admin.runs.UpdateRun, pb.UpdateRunRequest(run=wanted))
    page = await admin.call(admin.runs.ListRuns, pb.ListRunsRequest(parent=MODEL))
    assert (page.runs[0].display_name, page.runs[0].notes) == ("The first", "")
    assert page.runs[0].metrics == shown[0].metrics


async def test_a_run_is_deleted_restored_and_purged(admin: Desk) -> None:
    name = await ended(admin, "first")
    await ended(admin, "second")
    deleted = (await admin.call(admin.runs.DeleteRun, pb.DeleteRunRequest(name=name))).run
    assert deleted.HasField("delete_time")
    assert (await get(admin, name)).delete_time == deleted.delete_time
    assert await listed(admin) == ["second"]
    assert await listed(admin, show_deleted=True) == ["second", "first"]
    again = (await admin.call(admin.runs.DeleteRun, pb.DeleteRunRequest(name=name))).run
    assert again == deleted

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.ingest(
            pb.IngestRunDataRequest(run=name, writer="w", start_sequence=1, end_sequence=2)
        )
    assert reason(caught.value)[:2] == (REFUSED, "WRONG_STATE")

    restored = (await admin.call(admin.runs.RestoreRun, pb.RestoreRunRequest(name=name))).run
    assert not restored.HasField("delete_time")
    assert await listed(admin) == ["second", "first"]
    purge = pb.PurgeRunRequest(name=name)
    assert await admin.refused(admin.runs.PurgeRun, purge) == (REFUSED, "WRONG_STATE")

    stale = pb.DeleteRunRequest(name=name, etag="0")
    assert (await admin.refused(admin.runs.DeleteRun, stale))[1] == "ETAG_MISMATCH"
    await admin.call(admin.runs.DeleteRun, pb.DeleteRunRequest(name=name, etag=restored.etag))
    await admin.call(admin.runs.PurgeRun, purge)
    assert (await admin.refused(admin.runs.PurgeRun, purge))[1] == "RESOURCE_NOT_FOUND"
    assert await listed(admin, show_deleted=True) == ["second"]

    # The name is free again, and nothing of the old run is in the new one.
    anew = await get(admin, await admin.new_run("first"))
    assert not anew.metrics
    await admin.log(anew.name, f1=0.25)
    assert [metric.last for metric in (await get(admin, anew.name)).metrics] == [0.25]


async def test_a_run_that_is_needed_stays(admin: Desk, artifact: str) -> None:
    running = await admin.new_run("running")
    request = pb.DeleteRunRequest(name=running)
    assert await admin.refused(admin.runs.DeleteRun, request) == (REFUSED, "WRONG_STATE")

    name = await ended(admin, "first")
    version = await admin.new_version(artifact, run=name)
    code, why, metadata = await admin.refusal(admin.runs.DeleteRun, pb.DeleteRunRequest(name=name))
    assert (code, why, metadata["users"]) == (REFUSED, "RESOURCE_IN_USE", version.name)

    second = await ended(admin, "second")
    await admin.call(admin.runs.DeleteRun, pb.DeleteRunRequest(name=second))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin.new_version(artifact, run=second)
    assert reason(caught.value)[1] == "RESOURCE_NOT_FOUND"


async def test_a_purged_run_gives_its_bytes_back_even_later(admin: Desk, tmp_path: Path) -> None:
    address = f"127.0.0.1:{admin.house.port}"
    artifacts = f"127.0.0.1:{admin.house.artifact_port}"
    names = [await ended(admin, run_id) for run_id in ("first", "second")]
    async with (
        AsyncClient(address, token=admin.credential, project="default") as client,
        AsyncClient(artifacts, token=admin.credential, project="default") as bytes_client,
    ):

        async def purge(name: str) -> None:
            await client.runs.delete(name)
            await client.runs.purge(name)

        async with artifacts_running(admin.house, tmp_path / "artifact"):
            artifact = await admin.push()
            for name in names:
                await bytes_client.artifacts.hold(artifact, holder=name)
            await purge(names[0])
            held = [hold.holder async for hold in bytes_client.artifacts.holds(artifact)]
            assert held == names[1:]
        await purge(names[1])  # while nobody answers
        async with artifacts_running(admin.house, tmp_path / "artifact"):

            async def free() -> bool:
                return not [hold async for hold in bytes_client.artifacts.holds(artifact)]

            await until(free)
