"""Bytes that rotted in the storage are never delivered, and can be repaired by a push."""

from __future__ import annotations

import grpc
import pytest
from modelyard.artifact.v1 import artifact_service_pb2 as pb

from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.yard import MIB, Content, Yard, noise, reason, recipe, sha

BIG = noise(3, 3 * MIB)
HOLDER = "projects/alpha/models/churn/versions/1"


def flip(data: bytes) -> bytes:
    """Flip one bit in the middle of the data."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


async def test_flipped_bit_is_not_delivered_and_repaired_by_a_push(
    yard: Yard, backend: Backend
) -> None:
    artifact = await yard.push({"big": Content(BIG)})
    backend.damage(lambda data: flip(data) if len(data) > MIB else data)

    call = yard.stub.ReadFile(
        pb.ReadFileRequest(artifact=artifact.name, path="big"), metadata=yard.metadata
    )
    received = b""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in call:
            received += message.data
    code, why, metadata = reason(caught.value)
    assert (code, why) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
    assert metadata["digest"] == sha(BIG[MIB : 2 * MIB]).hex()
    assert BIG.startswith(received)
    assert len(received) <= MIB

    assert await yard.read(artifact.name, "big", limit=MIB) == BIG[:MIB]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.hold(artifact.name, HOLDER)
    assert reason(caught.value)[1] == "BYTES_MISSING"

    sent = yard.sent
    assert await yard.push({"big": Content(BIG)}) == artifact
    assert yard.sent - sent == MIB
    assert await yard.read(artifact.name, "big") == BIG
    await yard.hold(artifact.name, HOLDER)


async def test_who_verifies_himself_gets_what_is_stored(yard: Yard, backend: Backend) -> None:
    artifact = await yard.push({"big": Content(BIG)})
    backend.damage(lambda data: flip(data) if len(data) > MIB else data)
    request = pb.ReadFileRequest(artifact=artifact.name, path="big", unverified=True)
    call = yard.stub.ReadFile(request, metadata=yard.metadata)
    received = b"".join([message.data async for message in call])
    assert len(received) == len(BIG)
    assert sum(a != b for a, b in zip(received, BIG, strict=True)) == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.read(artifact.name, "big")
    assert reason(caught.value)[:2] == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
    await yard.push({"big": Content(BIG)})
    assert await yard.read(artifact.name, "big") == BIG


async def test_damage_before_the_commit(yard: Yard, backend: Backend) -> None:
    await yard.write([BIG[:MIB], BIG[MIB : 2 * MIB], BIG[2 * MIB :]])
    backend.damage(flip)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.commit(recipe(BIG))
    assert reason(caught.value)[:2] == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
    await yard.push({"big": Content(BIG)})


async def test_truncated_pack(yard: Yard, backend: Backend) -> None:
    artifact = await yard.push({"big": Content(BIG)})
    backend.damage(lambda data: data[: MIB + 100] if len(data) > MIB else data)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.hold(artifact.name, HOLDER)
    assert reason(caught.value)[1] == "BYTES_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.read(artifact.name, "big")
    assert reason(caught.value)[:2] == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.read(artifact.name, "big", offset=2 * MIB)
    assert reason(caught.value)[1] == "CORRUPT_BYTES"
    await yard.push({"big": Content(BIG)})
    assert await yard.read(artifact.name, "big") == BIG


async def test_a_hold_finds_lost_packs_and_a_push_repairs_them(
    yard: Yard, backend: Backend
) -> None:
    tree = {"big": Content(BIG), "small": Content(b"small")}
    artifact = await yard.push(tree)
    backend.damage(lambda _: b"")
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.hold(artifact.name, HOLDER)
        assert reason(caught.value)[1] == "BYTES_MISSING"
    await yard.push(tree)
    await yard.hold(artifact.name, HOLDER)
    assert await yard.pull(artifact.name) == tree
