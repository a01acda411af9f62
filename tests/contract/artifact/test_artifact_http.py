"""Files over HTTP: links that let read what they say and nothing else, and ranges as curl asks."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from modelyard import AsyncClient
from modelyard.artifact.v1 import artifact_pb2
from modelyard.errors import FailedPreconditionError, NotFoundError

from services.artifact.settings import ArtifactSettings
from services.common.settings import SettingsError
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import MIB, Content, Yard, noise, sha
from tests.contract.builder.yard import until

BIG = noise(5, 3 * MIB + 17)
TREE = {
    "model/weights.bin": Content(BIG),
    "model/ünï code.txt": Content(b"text"),
    "note": Content(b""),
}


class Place:
    """A tree that is stored, and a client of the service that serves it."""

    def __init__(self, client: AsyncClient, artifact: artifact_pb2.Artifact, yard: Yard) -> None:
        self.client = client
        self.artifact = artifact
        self.yard = yard

    async def url(self, path: str = "", **options: timedelta) -> str:
        return await self.client.artifacts.url(self.artifact.name, path, **options)


@pytest.fixture
async def place(backend: Backend) -> AsyncIterator[Place]:
    settings = replace(backend.settings, http_listen="127.0.0.1:0")
    async with (
        serving(settings) as port,
        connected(port) as stub,
        AsyncClient(f"127.0.0.1:{port}", token="alpha-token", project="alpha") as client,
    ):
        yard = Yard(stub)
        yield Place(client, await yard.push(TREE), yard)


async def test_curl_reads_ranges(place: Place) -> None:
    url = await place.url("model/weights.bin")

    async def curl(*options: str) -> bytes:
        command = ["curl", "-sf", *options, url]
        done = await asyncio.to_thread(
            subprocess.run, command, check=True, capture_output=True, timeout=30
        )
        return done.stdout

    assert await curl() == BIG
    assert await curl("-r", "0-0") == BIG[:1]
    assert await curl("-r", f"{MIB - 5}-{2 * MIB + 5}") == BIG[MIB - 5 : 2 * MIB + 6]
    assert await curl("-r", f"{3 * MIB}-") == BIG[3 * MIB :]
    assert await curl("-r", "-7") == BIG[-7:]
    assert b"Content-Length: 3145745".lower() in (await curl("-I")).lower()


async def test_answers_are_those_of_http(place: Place) -> None:
    url = await place.url("model/weights.bin")
    async with httpx.AsyncClient() as http:
        part = await http.get(url, headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, BIG[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{len(BIG)}"
        assert part.headers["etag"] == f'"{sha(BIG).hex()}"'
        assert part.headers["x-content-type-options"] == "nosniff"
        past = await http.get(url, headers={"Range": f"bytes={len(BIG)}-"})
        assert (past.status_code, past.json()["reason"]) == (416, "OFFSET_OUT_OF_RANGE")
        for several in ("bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=9-5", "bytes=9-5x"):
            whole = await http.get(url, headers={"Range": several})
            assert (whole.status_code, whole.content) == (200, BIG)
        every = await http.get(url, headers={"Range": "bytes=0-"})
        assert (every.status_code, every.content) == (206, BIG)
        assert (await http.head(url, headers={"Range": "bytes=0-1"})).status_code == 200
        other = {"Range": "bytes=0-1", "If-Range": '"other"'}
        assert (await http.get(url, headers=other)).status_code == 200
        known = {"If-None-Match": part.headers["etag"]}
        assert (await http.get(url, headers=known)).status_code == 304
        assert (await http.post(url)).status_code == 405
        empty = await http.get(await place.url("note"))
        assert (empty.status_code, empty.content) == (200, b"")
        bearer = {"Authorization": "Bearer alpha-token"}
        assert (await http.get(url.partition("?")[0], headers=bearer)).status_code == 503


async def test_a_link_reads_what_it_says(place: Place) -> None:
    folder = await place.url("model/")
    file = await place.url("model/weights.bin")
    async with httpx.AsyncClient() as http:

        async def code(url: str) -> int:
            return (await http.get(url, headers={"Range": "bytes=0-1"})).status_code

        assert await code(folder.replace("{path}", "weights.bin")) == 206
        text = await http.get(folder.replace("{path}", "ünï code.txt"))
        assert text.content == b"text"
        outside = folder.replace("model/{path}", "note")
        assert await code(outside) == 401
        assert await code(file.replace("weights.bin", "ünï code.txt")) == 401
        assert await code(file.partition("?")[0]) == 401
        assert await code(file[:-2]) == 401
        other = await place.yard.push({"model/weights.bin": Content(b"other")})
        assert await code(file.replace(place.artifact.name[-64:], other.name[-64:])) == 401
        assert await code(file.replace("/alpha/", "/beta/")) == 401
        absent = (await place.url()).replace("{path}", "absent")
        assert await code(absent) == 404
        assert await code((await place.url()).replace("{path}", "../x")) in (400, 404)
        brief = await place.url("model/weights.bin", lifetime=timedelta(seconds=2))
        assert await code(brief) == 206

        async def late() -> bool:
            return await code(brief) == 401

        await until(late)
    with pytest.raises(NotFoundError):
        await place.url("absent")


async def test_damage_is_not_delivered(place: Place, backend: Backend) -> None:
    url = await place.url("model/weights.bin")
    backend.damage(lambda data: bytes(len(data)))
    async with httpx.AsyncClient() as http:
        last = await http.get(url, headers={"Range": "bytes=-5"})
        assert (last.status_code, last.json()["reason"]) == (500, "CORRUPT_BYTES")
        assert (await http.get(url)).status_code == 500


async def test_an_answer_that_began_ends_short_at_damage(place: Place, backend: Backend) -> None:
    large = noise(6, 9 * MIB)
    artifact = await place.yard.push({"large": Content(large)})
    url = await place.client.artifacts.url(artifact.name, "large")
    backend.damage(lambda data: data.replace(large[-9:], bytes(9)))
    received = bytearray()
    async with httpx.AsyncClient() as http, http.stream("GET", url) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.TransportError):
            async for piece in answer.aiter_raw():
                received += piece
    assert len(received) < len(large)
    assert large.startswith(received)


async def test_without_http_there_are_no_links(sqlite_disk: Backend) -> None:
    nowhere = replace(sqlite_disk.settings, http_url="https://files.example.com")
    async with (
        serving(nowhere) as port,
        connected(port) as stub,
        AsyncClient(f"127.0.0.1:{port}", token="alpha-token", project="alpha") as client,
    ):
        artifact = await Yard(stub).push(TREE)
        with pytest.raises(FailedPreconditionError):
            await client.artifacts.url(artifact.name, "note")


async def test_a_public_address_needs_a_certificate(sqlite_disk: Backend) -> None:
    public: ArtifactSettings = replace(sqlite_disk.settings, http_listen="0.0.0.0:0")
    with pytest.raises(SettingsError):
        async with serving(public):
            pass
