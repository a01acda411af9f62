"""Who did what, in metadata: with the change, refusals included, found by whoever may look."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from modelyard.auditing import Chain, Head, fields_of
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import audit_service_pb2 as audit_pb
from modelyard.metadata.v1 import audit_service_pb2_grpc, model_pb2, project_pb2, token_pb2
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from tests.contract.metadata.desk import MODEL, PROJECT, Desk, eventually

MODELS = "modelyard.metadata.v1.ModelService"


def trail_of(desk: Desk) -> Any:
    return audit_service_pb2_grpc.AuditServiceStub(desk._channel)


async def entries(desk: Desk, where: str = "") -> list[Any]:
    request = audit_pb.ListAuditEntriesRequest(filter=where, order_by="sequence", page_size=1000)
    return list((await desk.call(trail_of(desk).ListAuditEntries, request)).audit_entries)


async def found(desk: Desk, where: str, count: int = 1) -> list[Any]:
    """Wait until what was just done is in the chain."""

    async def is_there() -> bool:
        return len(await entries(desk, where)) >= count

    await eventually(is_there)
    return await entries(desk, where)


def creation(model: str, request_id: str = "") -> models_pb.CreateModelRequest:
    return models_pb.CreateModelRequest(
        parent=PROJECT, model_id=model, model=model_pb2.Model(), request_id=request_id
    )


async def test_changes_leave_an_entry_with_who_and_what(admin: Desk) -> None:
    request_id = str(uuid.uuid4())
    await admin.call(admin.models.CreateModel, creation("churn", request_id))
    await admin.call(admin.models.GetModel, models_pb.GetModelRequest(name=MODEL))
    (entry,) = await found(admin, f'request_id = "{request_id}"')
    assert (entry.actor, entry.method) == ("user:admin", f"{MODELS}/CreateModel")
    assert (entry.resource, entry.outcome, entry.count) == (MODEL, "OK", 1)
    assert await entries(admin, f'method = "{MODELS}/GetModel"') == []


async def test_refusals_leave_one_too_whatever_refused_them(admin: Desk) -> None:
    viewer = await admin.new_caller(
        "user:viewer", token_pb2.Grant(project=PROJECT, role=project_pb2.ROLE_VIEWER)
    )
    nobody = admin.as_caller("myd_forged")
    get = models_pb.GetModelRequest(name="projects/other/models/secret")
    for desk, method, request, reason in (
        (viewer, viewer.models.CreateModel, creation("churn"), "RIGHT_MISSING"),
        (viewer, viewer.models.GetModel, get, "RIGHT_MISSING"),
        (nobody, nobody.models.CreateModel, creation("churn"), "INVALID_CREDENTIAL"),
        (nobody, nobody.models.GetModel, get, "INVALID_CREDENTIAL"),
        (admin, admin.models.CreateModel, creation("-bad-"), "INVALID_NAME"),
    ):
        assert (await desk.refused(method, request))[1] == reason
    refused = await found(admin, f'outcome != "OK" AND method : "{MODELS}"', count=5)
    told = {(e.actor, e.method.rpartition("/")[2], e.resource, e.outcome) for e in refused}
    assert told == {
        ("user:viewer", "CreateModel", PROJECT, "RIGHT_MISSING"),
        ("user:viewer", "GetModel", "projects/other/models/secret", "RIGHT_MISSING"),
        ("", "CreateModel", "", "INVALID_CREDENTIAL"),
        ("", "GetModel", "", "INVALID_CREDENTIAL"),
        ("user:admin", "CreateModel", PROJECT, "INVALID_NAME"),
    }


async def test_logging_a_run_leaves_an_entry_a_stream_and_none_a_point(admin: Desk) -> None:
    await admin.call(admin.models.CreateModel, creation("churn"))
    run = await admin.new_run("one")
    for _ in range(3):
        await admin.log(run, loss=1.0, f1=0.5)
    streams = await found(admin, 'method : "IngestRunData"')
    assert sum(entry.count for entry in streams) <= 3
    assert {entry.resource for entry in streams} == {run}


async def test_streams_that_break_off_leave_one_too(admin: Desk) -> None:
    await admin.call(admin.models.CreateModel, creation("churn"))
    names = [await admin.new_run(f"run-{number}") for number in range(4)]

    async def broken_off(run: str) -> None:
        async def messages() -> AsyncIterator[runs_pb.IngestRunDataRequest]:
            batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
            batch.metrics.add(key="loss", steps=[0], times_us=[1], values=[1.0])
            yield batch
            await asyncio.Event().wait()

        call = admin.runs.IngestRunData(messages(), metadata=admin.metadata, timeout=20)
        async for _ in call:
            call.cancel()
            return

    await asyncio.gather(*(broken_off(run) for run in names))
    streams = await found(admin, 'method : "IngestRunData"', count=4)
    assert {entry.resource for entry in streams} == set(names)


async def test_only_who_may_audit_reads_the_trail(admin: Desk) -> None:
    operator = await admin.new_caller("user:operator", installation_rights=["RIGHT_OPERATE"])
    code, reason = await operator.refused(
        trail_of(operator).ListAuditEntries, audit_pb.ListAuditEntriesRequest()
    )
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
    auditor = await admin.new_caller("user:auditor", installation_rights=[access_pb2.RIGHT_AUDIT])
    assert await found(auditor, 'method : "CreateToken"', count=2)


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_the_chain_says_so_itself(admin: Desk) -> None:
    for number in range(5):
        await admin.call(admin.models.CreateModel, creation(f"m{number}"))
    await found(admin, 'method : "CreateModel"', count=5)
    request = audit_pb.ListAuditEntriesRequest(order_by="sequence", page_size=1000)
    page = await admin.call(trail_of(admin).ListAuditEntries, request)
    chain = Chain("metadata")
    for entry in page.audit_entries:
        chain.add(fields_of(entry), entry.hash)
    chain.end(Head(page.head.sequence, page.head.hash))
    assert chain.problems == []
    page.audit_entries[2].actor = "user:somebody"
    forged = Chain("metadata")
    for entry in page.audit_entries:
        forged.add(fields_of(entry), entry.hash)
    assert forged.problems == ["entry 3 was changed, or what was before it"]
