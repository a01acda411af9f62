"""Where watches end: at what was forgotten, and with the right to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from modelyard import AsyncClient, OutOfRangeError
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import project_pb2, token_pb2
from modelyard.metadata.v1 import project_service_pb2 as projects_pb

from services.metadata.settings import MetadataSettings
from tests.contract.artifact.yard import reason
from tests.contract.metadata.desk import PROJECT, Desk, eventually
from tests.contract.metadata.test_metadata_watch import EVERY, create, cursor_of, refused, watch

KEPT = 3
EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")


@pytest.fixture
def settings(settings: MetadataSettings) -> MetadataSettings:
    return replace(
        settings,
        ledger_days=0.0,
        ledger_changes=KEPT,
        ledger_trim_seconds=0.1,
    )


@pytest.fixture
async def client(admin: Desk) -> AsyncIterator[AsyncClient]:
    address = f"127.0.0.1:{admin.house.port}"
    async with AsyncClient(address, token=admin.credential, project="default") as client:
        yield client


async def test_what_was_forgotten_is_said_to_be(admin: Desk, client: AsyncClient) -> None:
    before = await cursor_of(admin)
    for number in range(2 * KEPT):
        await create(admin, f"m-{number}")
    request = pb.WatchModelsRequest(parent=EVERY, cursor=before)

    async def forgotten() -> bool:
        try:
            await watch(admin, before, 2 * KEPT)
        except grpc.aio.AioRpcError as error:
            return reason(error)[:2] == EXPIRED
        return False

    await eventually(forgotten)
    assert await refused(admin, request) == EXPIRED
    with pytest.raises(OutOfRangeError) as raised:
        await anext(aiter(client.watch(cursor=before)))
    assert raised.value.reason == "CURSOR_EXPIRED"

    cursor = await client.changes.cursor()
    listed = [model.name async for model in client.models.list()]
    assert len(listed) == 2 * KEPT
    await create(admin, "late")
    change = await anext(aiter(client.watch(cursor=cursor)))
    assert change.name == f"{PROJECT}/models/late"


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_stream_ends_with_its_credential(admin: Desk, end: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    expire_time = Timestamp(seconds=int(soon.timestamp()) + 1) if end == "expired" else None
    viewer = token_pb2.Grant(project=PROJECT, role=project_pb2.ROLE_VIEWER)
    token = token_pb2.Token(principal="user:eve", grants=[viewer], expire_time=expire_time)
    made = await admin.call(admin.projects.CreateToken, projects_pb.CreateTokenRequest(token=token))
    eve = admin.as_caller(made.secret)
    heard = asyncio.ensure_future(listen(eve))
    numbers = iter(range(1_000))

    async def told() -> bool:
        await create(admin, f"m-{next(numbers)}")
        return bool(LISTENED) or heard.done()

    await eventually(told)
    if end == "revoked":
        revoke = projects_pb.RevokeTokenRequest(name=made.token.name)
        await admin.call(admin.projects.RevokeToken, revoke)

    async def ended() -> bool:
        await create(admin, f"m-{next(numbers)}")
        return heard.done()

    await eventually(ended, seconds=6)
    assert await heard == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIAL")


LISTENED: list[pb.ModelChange] = []


async def listen(desk: Desk) -> tuple[grpc.StatusCode, str]:
    """Watch until the stream ends; return how it did."""
    LISTENED.clear()
    request = pb.WatchModelsRequest(parent=EVERY)
    try:
        async for message in desk.models.WatchModels(request, metadata=desk.metadata, timeout=20):
            LISTENED.extend(message.changes)
    except grpc.aio.AioRpcError as error:
        return reason(error)[:2]
    raise AssertionError("it ended without a reason")
