"""Bytes straight to and from storage: what a grant lets do, and what nobody believes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelyard import AsyncClient
from modelyard.artifact.v1 import transfer_service_pb2 as transfer
from modelyard.artifact.v1 import transfer_service_pb2_grpc

from services.artifact.blobs import signing
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import MIB, Content, Yard, noise, reason, recipe, sha
from tests.contract.builder.yard import until

PARENT = "projects/alpha"
BIG = noise(8, 40 * MIB + 3)


class Place:
    """A service whose bytes lie in object storage."""

    def __init__(self, client: AsyncClient, yard: Yard, channel: grpc.aio.Channel) -> None:
        self.client = client
        self.yard = yard
        stub = transfer_service_pb2_grpc.TransferServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        self._stub: Any = stub

    async def call(self, name: str, request: Any) -> Any:
        return await getattr(self._stub, name)(request, metadata=self.yard.metadata, timeout=20)

    async def refused(self, name: str, request: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(name, request)
        return reason(caught.value)[1]

    async def announce(self, data: bytes) -> transfer.GrantPackResponse:
        request = transfer.GrantPackRequest(
            parent=PARENT, size_bytes=len(data), sha256=hashlib.sha256(data).digest()
        )
        granted: transfer.GrantPackResponse = await self.call("GrantPack", request)
        return granted


@pytest.fixture
async def place(postgresql_s3: Backend) -> AsyncIterator[Place]:
    settings = replace(postgresql_s3.settings, scrub_bytes_per_second=1e9)
    async with (
        serving(settings) as port,
        connected(port) as stub,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        AsyncClient(f"127.0.0.1:{port}", token="alpha-token", project="alpha") as client,
    ):
        yield Place(client, Yard(stub), channel)


async def http(grant: transfer.Grant, data: bytes | None = None, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(
            grant.method, grant.url, headers={**grant.headers, **headers}, content=data
        )


def chunks_of(*pieces: bytes) -> list[transfer.PackedChunk]:
    return [transfer.PackedChunk(digest=sha(p), length_bytes=len(p)) for p in pieces]


async def test_a_tree_goes_there_and_comes_back(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "big.bin").write_bytes(BIG)
    (tree / "small.txt").write_text("small")
    small = {f"{n}.bin": noise(100 + n, 40_000) for n in range(30)}
    for name, data in small.items():
        (tree / name).write_bytes(data)
    artifact = await place.client.artifacts.push(tree)
    usage = await place.client.storage.usage()
    assert usage.stored_bytes >= len(BIG)
    for number, direct in enumerate(("on", "off")):
        monkeypatch.setenv("MODELYARD_DIRECT", direct)
        target = await place.client.artifacts.pull(artifact.name, tmp_path / f"out{number}")
        assert (target / "big.bin").read_bytes() == BIG
        assert (target / "small.txt").read_text() == "small"
        assert {name: (target / name).read_bytes() for name in small} == small
    again = await place.client.artifacts.push(tree)
    assert again == artifact
    assert (await place.client.storage.usage()).stored_bytes == usage.stored_bytes


async def test_a_grant_is_for_one_object_once(place: Place) -> None:
    data = noise(1, MIB)
    granted = await place.announce(data)
    lasts = granted.grant.expire_time.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta() < lasts <= timedelta(minutes=15)
    assert (await http(granted.grant, noise(2, MIB))).status_code == 400
    other = transfer.Grant()
    other.CopyFrom(granted.grant)
    other.url = other.url[:-1] + ("0" if other.url[-1] != "0" else "1")
    assert (await http(other, data)).status_code == 403
    other.CopyFrom(granted.grant)
    other.method = "GET"
    del other.headers["Content-Length"]
    assert (await http(other)).status_code == 403
    assert (await http(granted.grant, data)).status_code == 200
    assert (await http(granted.grant, data)).status_code == 412
    add = transfer.AddPackRequest(parent=PARENT, pack=granted.pack, chunks=chunks_of(data))
    await place.call("AddPack", add)
    await place.call("AddPack", add)
    assert not (await place.yard.find_missing(chunks=[sha(data)])).missing_chunk_digests


async def test_an_old_grant_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    past = datetime.now(UTC) - timedelta(minutes=16)
    monkeypatch.setattr(signing, "now", lambda: past)
    granted = await place.announce(b"late")
    assert (await http(granted.grant, b"late")).status_code == 403


async def test_what_was_not_put_is_not_stored(place: Place) -> None:
    data = noise(3, 2 * MIB)
    granted = await place.announce(data)
    halves = chunks_of(data[:MIB], data[MIB:])
    add = transfer.AddPackRequest(parent=PARENT, pack=granted.pack, chunks=halves)
    assert await place.refused("AddPack", add) == "BYTES_MISSING"
    assert (await http(granted.grant, data)).status_code == 200
    short = transfer.AddPackRequest(parent=PARENT, pack=granted.pack, chunks=halves[:1])
    assert await place.refused("AddPack", short) == "INVALID_FIELD"
    stranger = transfer.AddPackRequest(parent=PARENT, pack="0" * 32, chunks=halves)
    assert await place.refused("AddPack", stranger) == "RESOURCE_NOT_FOUND"
    for size in (0, -1, 64 * MIB + 1):
        wrong = transfer.GrantPackRequest(parent=PARENT, size_bytes=size, sha256=bytes(32))
        assert await place.refused("GrantPack", wrong) == "INVALID_FIELD"
    brief = transfer.GrantPackRequest(parent=PARENT, size_bytes=5, sha256=b"x")
    assert await place.refused("GrantPack", brief) == "INVALID_FIELD"
    await place.call("AddPack", add)


async def test_a_lie_is_found_out_and_never_delivered(place: Place) -> None:
    truth, lie = noise(4, MIB), noise(5, MIB)
    granted = await place.announce(lie)
    assert (await http(granted.grant, lie)).status_code == 200
    claim = transfer.PackedChunk(digest=sha(truth), length_bytes=MIB)
    add = transfer.AddPackRequest(parent=PARENT, pack=granted.pack, chunks=[claim])
    await place.call("AddPack", add)

    async def found_out() -> bool:
        return bool((await place.yard.find_missing(chunks=[sha(truth)])).missing_chunk_digests)

    await until(found_out)
    await place.yard.push_files([truth])
    await place.yard.commit(recipe(truth))


async def test_an_object_that_was_tampered_with_is_refused(
    place: Place, postgresql_s3: Backend, tmp_path: Path
) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(BIG)
    artifact = await place.client.artifacts.push(source)
    postgresql_s3.damage(
        lambda data: data[:-1] + bytes([data[-1] ^ 1]) if len(data) > MIB else data
    )
    with pytest.raises(Exception, match=r"damaged|did not arrive"):
        await place.client.artifacts.pull(artifact.name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    damaged = await place.client.storage.verify(artifact.name)
    assert [file.path for file in damaged] == ["big.bin"]
    await place.client.artifacts.push(source)
    out = await place.client.artifacts.pull(artifact.name, tmp_path / "out")
    assert (out / "big.bin").read_bytes() == BIG


async def test_a_pack_lists_no_chunk_twice(place: Place) -> None:
    data = noise(6, 1000)
    granted = await place.announce(data + data)
    assert (await http(granted.grant, data + data)).status_code == 200
    add = transfer.AddPackRequest(parent=PARENT, pack=granted.pack, chunks=chunks_of(data, data))
    assert await place.refused("AddPack", add) == "INVALID_FIELD"


async def test_grants_are_for_ones_own_project(place: Place) -> None:
    large = noise(9, 2 * MIB)
    artifact = await place.yard.push({"big": Content(large)})
    data = noise(7, 1000)
    granted = await place.announce(data)
    assert (await http(granted.grant, data)).status_code == 200
    place.yard = Yard(place.yard.stub, "beta")
    read = transfer.GrantReadsRequest(artifact=artifact.name, file_digests=[sha(large)])
    assert await place.refused("GrantReads", read) == "RIGHT_MISSING"
    for parent, why in ((PARENT, "RIGHT_MISSING"), ("projects/beta", "RESOURCE_NOT_FOUND")):
        add = transfer.AddPackRequest(parent=parent, pack=granted.pack, chunks=chunks_of(data))
        assert await place.refused("AddPack", add) == why
    own = await place.yard.push({"small": Content(b"x")})
    read = transfer.GrantReadsRequest(artifact=own.name, file_digests=[sha(large)])
    assert await place.refused("GrantReads", read) == "RESOURCE_NOT_FOUND"
    # Whoever knows the digests of another's chunks cannot make a file of them.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await place.yard.commit(recipe(large))
    assert reason(caught.value)[1] == "BYTES_MISSING"
