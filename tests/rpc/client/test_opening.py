"""Files opened in place: seekable, read by ranges."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import pytest
from modelyard import AsyncClient, Client, NotFoundError

from tests.rpc.client.test_transfer import MIB


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(77).randbytes(11 * MIB + 5)  # noqa: S311 - bytes for a test


def test_a_file_is_read_in_place(client: Client, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    artifact = client.artifacts.push(tmp_path / "model.bin")
    source = random.Random(1)  # noqa: S311
    with client.artifacts.open(artifact, "model.bin") as file:
        assert file.seekable()
        assert file.readable()
        for _ in range(20):
            at, count = source.randrange(len(data)), source.choice((1, 4096, 3 * MIB))
            assert file.seek(at) == at
            assert file.read(count) == data[at : at + count]
        assert file.seek(-3, io.SEEK_END) == len(data) - 3
        assert file.read() == data[-3:]
        assert file.read(1) == b""
        file.seek(0)
        assert file.read() == data
    with pytest.raises(NotFoundError):
        client.artifacts.open(artifact, "other")


def test_libraries_take_it_for_a_file(client: Client, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("noise", random.Random(2).randbytes(3 * MIB))  # noqa: S311
        archive.writestr("wanted", b"inside")
    artifact = client.artifacts.push(tmp_path / "model.zip")
    with (
        client.artifacts.open(artifact, "model.zip") as file,
        zipfile.ZipFile(file) as archive,
    ):
        assert archive.read("wanted") == b"inside"


async def test_the_async_twin_reads_in_place(client: Client, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    (tmp_path / "empty").touch()
    server = client.settings.server
    async with AsyncClient(server, token="alpha-token", project="alpha") as twin:
        artifact = await twin.artifacts.push(tmp_path)
        async with await twin.artifacts.open(artifact, "model.bin") as file:
            assert file.size == len(data)
            file.seek(-MIB, io.SEEK_END)
            assert await file.read(100) == data[-MIB:][:100]
            assert file.tell() == len(data) - MIB + 100
            file.seek(5)
            assert await file.read() == data[5:]
        empty = await twin.artifacts.open(artifact, "empty")
        assert await empty.read() == b""
