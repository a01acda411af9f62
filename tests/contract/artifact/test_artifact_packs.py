"""Packs on disk over HTTP: who reads them so, what a grant lets read, and what broken ways do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelyard import AsyncClient, DataLossError
from modelyard.artifact.v1 import artifact_pb2, transfer_service_pb2_grpc
from modelyard.artifact.v1 import transfer_service_pb2 as transfer
from modelyard.artifact.v1.storage_pb2 import GarbageKind

from services.artifact.http import pack_grants
from services.artifact.settings import ArtifactSettings
from tests.certificates import Authority
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.relay import Relay, relayed
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.stores import until
from tests.contract.artifact.yard import MIB, Content, Yard, noise, reason, sha
from tests.servers.processes import free_port

BIG = noise(11, 9 * MIB + 5)
OTHER = noise(12, 2 * MIB)
SMALL = {f"small/{n:02}": noise(100 + n, 30_000 + n) for n in range(30)}
SMALL |= {"small/none": b"", "small/same": SMALL["small/07"], "far": b"beside no other of its kind"}
TREE = {"big": BIG, "other": OTHER, **SMALL}
SIZE = sum(map(len, TREE.values()))


@dataclass(frozen=True)
class Place:
    """A service on disk with a stored tree, and a relay before its HTTP."""

    client: AsyncClient
    artifact: artifact_pb2.Artifact
    relay: Relay
    stub: Any
    yard: Yard

    async def grants(self, *files: bytes) -> list[transfer.Grant]:
        request = transfer.GrantReadsRequest(
            artifact=self.artifact.name, file_digests=[sha(file) for file in files]
        )
        metadata = (("authorization", "Bearer alpha-token"),)
        answer = await self.stub.GrantReads(request, metadata=metadata, timeout=20)
        return list(answer.grants)


@asynccontextmanager
async def placed(settings: ArtifactSettings, relay: Relay) -> AsyncIterator[Place]:
    async with (
        serving(settings) as own,
        connected(own) as stub,
        grpc.aio.insecure_channel(f"127.0.0.1:{own}") as channel,
        AsyncClient(f"127.0.0.1:{own}", token="alpha-token", project="alpha") as client,
    ):
        yard = Yard(stub)
        artifact = await yard.push({path: Content(data) for path, data in TREE.items()})
        transfers: Any = transfer_service_pb2_grpc.TransferServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        yield Place(client, artifact, relay, transfers, yard)


@pytest.fixture
async def place(sqlite_disk: Backend) -> AsyncIterator[Place]:
    async with relayed() as (relay, port):
        relay.target = free_port()
        settings = replace(
            sqlite_disk.settings,
            http_listen=f"127.0.0.1:{relay.target}",
            http_url=f"http://127.0.0.1:{port}/",
        )
        async with placed(settings, relay) as place:
            yield place


async def http(grant: transfer.Grant, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(method, grant.url, headers={**grant.headers, **headers})


def with_url(grant: transfer.Grant, change: Callable[[str], str]) -> transfer.Grant:
    return transfer.Grant(method="GET", url=change(grant.url), headers=grant.headers)


def with_token(grant: transfer.Grant, token: str) -> transfer.Grant:
    return transfer.Grant(method="GET", url=grant.url, headers={"Authorization": token})


def flipped(data: bytes) -> bytes:
    """Flip a bit, but of nothing short, such as the head of an answer."""
    middle = len(data) // 2
    if len(data) < 10_000:
        return data
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


async def test_what_is_pulled_comes_by_http_or_else_by_grpc(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pulled(name: str) -> int:
        before = place.relay.received
        out = await place.client.artifacts.pull(place.artifact.name, tmp_path / name)
        assert {path: (out / path).read_bytes() for path in TREE} == TREE
        return place.relay.received - before

    assert await pulled("whole") > SIZE - len(SMALL["small/07"]) - 100
    for number, where in enumerate((100_000, 3 * MIB, 10 * MIB)):
        place.relay.cut_after = where  # what was left is fetched by the service
        await pulled(f"cut{number}")
        assert place.relay.cut_after == -1
    place.relay.change = flipped
    assert await pulled("changed") > 0
    place.relay.change = bytes
    monkeypatch.setenv("MODELYARD_DIRECT", "off")
    assert await pulled("off") == 0


async def test_who_trusts_the_service_trusts_its_http(sqlite_disk: Backend, tmp_path: Path) -> None:
    authority = Authority()
    for name, pem in zip(("key.pem", "certificate.pem"), authority.issue(""), strict=True):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(pem)
    # As bundles of authorities have it, names and all.
    (tmp_path / "trusted.pem").write_bytes("# Größte Sicherheit\n".encode() + authority.pem)
    async with relayed() as (relay, port):
        relay.target = free_port()
        settings = replace(
            sqlite_disk.settings,
            http_listen=f"127.0.0.1:{relay.target}",
            http_url=f"https://127.0.0.1:{port}",
            http_tls_certificate=str(tmp_path / "certificate.pem"),
            http_tls_key=str(tmp_path / "key.pem"),
        )
        async with serving(settings) as own, connected(own) as stub:
            artifact = await Yard(stub).push({"big": Content(BIG)})
            for number, trusted in enumerate((None, tmp_path / "trusted.pem")):
                async with AsyncClient(
                    f"http://127.0.0.1:{own}",
                    token="alpha-token",
                    project="alpha",
                    root_certificates=trusted,
                ) as client:
                    out = await client.artifacts.pull(artifact.name, tmp_path / f"out{number}")
                assert (out / "big").read_bytes() == BIG
                assert (relay.received > len(BIG)) is (trusted is not None)


async def test_a_way_that_is_closed_is_not_needed(place: Place, tmp_path: Path) -> None:
    place.relay.target = free_port()
    out = await place.client.artifacts.pull(place.artifact.name, tmp_path / "out")
    assert (out / "big").read_bytes() == BIG


async def test_a_pull_that_was_cut_off_goes_on(place: Place, tmp_path: Path) -> None:
    partial = tmp_path / f".out.partial-{place.artifact.name.rpartition('/')[2][:16]}"
    partial.mkdir()
    (partial / "big").write_bytes(BIG[: 6 * MIB])
    out = await place.client.artifacts.pull(place.artifact.name, tmp_path / "out")
    assert (out / "big").read_bytes() == BIG
    assert SIZE - 7 * MIB < place.relay.received < SIZE - 5 * MIB


async def test_a_grant_reads_one_pack(place: Place) -> None:
    grants = await place.grants(BIG, OTHER)
    packs = [await http(grant) for grant in grants]
    assert len(grants) >= 3
    assert b"".join(pack.content for pack in packs).count(OTHER[:100]) == 1
    first, second = grants[:2]
    part = await http(first, Range="bytes=5-9")
    assert (part.status_code, part.content) == (206, packs[0].content[5:10])
    assert part.headers["x-content-type-options"] == "nosniff"
    assert "server" not in part.headers
    assert (await http(first, Range=f"bytes={64 * MIB}-")).status_code == 416
    for method in ("HEAD", "PUT", "POST", "DELETE"):
        assert (await http(first, method)).status_code == 405
    swapped = with_url(first, lambda _: second.url)
    refused = await http(swapped)
    assert (refused.status_code, refused.json()["reason"]) == (401, "INVALID_CREDENTIAL")


async def test_an_artifact_that_went_grants_nothing(sqlite_disk: Backend) -> None:
    settings = replace(
        sqlite_disk.settings, http_listen="127.0.0.1:0", lease_seconds=0.1, sweep_seconds=0.0
    )
    async with placed(settings, Relay()) as place:
        # What it has in common with another stays, and its manifest is remembered.
        other = await place.yard.push({"other": Content(OTHER)})
        await place.yard.hold(other.name, "projects/alpha/models/churn/versions/1")
        assert await place.grants(BIG, OTHER)

        async def went() -> bool:
            swept = await place.client.storage.sweep()
            return GarbageKind.GARBAGE_KIND_ARTIFACT in [item.kind for item in swept.items]

        await until(went)
        for file in (OTHER, BIG):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await place.grants(file)
            assert reason(caught.value)[1] == "RESOURCE_NOT_FOUND"


async def test_nothing_else_opens_a_pack(place: Place) -> None:
    grant = (await place.grants(BIG))[0]
    link = (await place.client.artifacts.url(place.artifact.name, "big")).partition("=")[2]
    good = grant.headers["Authorization"]
    head, body, signature = good.removeprefix("Bearer ").split(".")
    for token in (
        "",
        "Bearer",
        "Bearer alpha-token",
        f"Bearer {link}",
        good[:-4],
        f"Bearer {head}.{body}.",
        f"Bearer {body}.{head}.{signature}",
        "Bearer " + "x" * 5_000,
        good.replace("Bearer", "Basic"),
    ):
        assert (await http(with_token(grant, token))).status_code == 401, token
    assert (await http(with_token(grant, "x" * 10_000))).status_code == 400
    file = place.artifact.name.replace("projects", "files").replace("/artifacts", "")
    reads_file = with_url(grant, lambda url: url.partition("/packs/")[0] + f"/{file}/big")
    assert (await http(reads_file)).status_code in (401, 503)
    for name in ("..%2f..%2fartifact.db", "../artifact.db", "0" * 31, "A" * 32, "", "0" * 32 + "/"):
        strange = with_url(grant, lambda url, name=name: url[:-32] + name)  # type: ignore[misc]
        assert (await http(strange)).status_code == 404, name
    assert (await http(with_url(grant, lambda url: url[:-32] + "0" * 32))).status_code == 401


async def test_a_grant_ends(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await http((await place.grants(BIG))[0])).status_code == 200
    monkeypatch.setattr(pack_grants, "VALID", timedelta(seconds=-1))
    assert (await http((await place.grants(BIG))[0])).status_code == 401


async def test_a_pack_that_was_damaged_is_told_by_the_service(
    place: Place, sqlite_disk: Backend, tmp_path: Path
) -> None:
    sqlite_disk.damage(flipped)
    with pytest.raises(DataLossError):
        await place.client.artifacts.pull(place.artifact.name, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    damaged = await place.client.storage.verify(place.artifact.name)
    assert "big" in [file.path for file in damaged]


async def test_a_pack_that_is_gone_is_told_by_the_service(
    place: Place, sqlite_disk: Backend, tmp_path: Path
) -> None:
    grant = (await place.grants(BIG))[0]
    for path in (Path(sqlite_disk.settings.data) / "packs").glob("*/*"):
        path.unlink()
    assert (await http(grant)).status_code == 404
    with pytest.raises(DataLossError):
        await place.client.artifacts.pull(place.artifact.name, tmp_path / "out")
