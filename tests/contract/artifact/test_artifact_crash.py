"""What was acknowledged survives kill -9; a full disk and a cut are told and leave no harm."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path

import grpc
import pytest
from modelyard.artifact.v1 import artifact_service_pb2 as pb

from services.artifact.settings import PREFIX, ArtifactSettings
from tests.contract.artifact.conftest import Backend, Start
from tests.contract.artifact.serving import connected
from tests.contract.artifact.yard import MIB, Content, Yard, noise, reason, sha

_LIMITED = "import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
_RUN = "runpy.run_module('tests.contract.artifact.serving', run_name='__main__')"


@asynccontextmanager
async def process(settings: ArtifactSettings, *, file_limit: int = -1) -> AsyncIterator[Yard]:
    """Run the service in a process of its own, and kill it at the end."""
    variables = {PREFIX + key.upper(): str(value) for key, value in asdict(settings).items()}
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LIMITED.format(file_limit) + _RUN,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
    )
    assert started.stdout is not None
    try:
        port = int(await started.stdout.readline())
        async with connected(port) as stub:
            yield Yard(stub)
    finally:
        started.kill()
        await started.wait()


async def eventually(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.01)


async def test_acknowledged_chunks_survive_a_kill(backend: Backend, start: Start) -> None:
    block = noise(4, MIB - 8)
    chunks = [index.to_bytes(8, "big") + block for index in range(10)]
    acknowledged = 0

    async def endless() -> AsyncIterator[pb.WriteChunksRequest]:
        for chunk in chunks:
            part = pb.Chunk(digest=sha(chunk), data=chunk)
            yield pb.WriteChunksRequest(parent="projects/alpha", chunks=[part])
        await asyncio.Event().wait()

    async with process(backend.settings) as yard:
        async for answer in yard.stub.WriteChunks(endless(), metadata=yard.metadata):
            acknowledged = answer.durable_chunk_count
            break
    assert acknowledged > 0
    unfinished = backend.settings.folder / "unfinished"
    assert list(unfinished.iterdir())

    settings = replace(backend.settings, temporary_seconds=0.0)
    async with process(settings) as yard:
        assert not list(unfinished.iterdir())
        durable = [sha(chunk) for chunk in chunks[:acknowledged]]
        assert not (await yard.find_missing(chunks=durable)).missing_chunk_digests
        artifact = await yard.push({"big": Content(b"".join(chunks))})
        assert yard.sent <= (len(chunks) - acknowledged + 1) * MIB
        assert await yard.read(artifact.name, "big", offset=7 * MIB) == b"".join(chunks)[7 * MIB :]


async def test_a_cut_stream_keeps_what_was_received(yard: Yard, backend: Backend) -> None:
    chunks = [os.urandom(1000) for _ in range(10)]

    async def endless() -> AsyncIterator[pb.WriteChunksRequest]:
        for chunk in chunks:
            part = pb.Chunk(digest=sha(chunk), data=chunk)
            yield pb.WriteChunksRequest(parent="projects/alpha", chunks=[part])
        await asyncio.Event().wait()

    unfinished = backend.settings.folder / "unfinished"
    call = yard.stub.WriteChunks(endless(), metadata=yard.metadata)
    reading = asyncio.create_task(call.read())
    await eventually(lambda: sum(path.stat().st_size for path in unfinished.iterdir()) == 10_000)
    call.cancel()
    await asyncio.wait([reading])
    await eventually(lambda: not list(unfinished.iterdir()))
    digests = [sha(chunk) for chunk in chunks]
    deadline = time.monotonic() + 10
    while (await yard.find_missing(chunks=digests)).missing_chunk_digests:
        assert time.monotonic() < deadline, "what was received before the cut was not kept"
        await asyncio.sleep(0.02)


async def test_full_disk(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the same call fails in the same place."""
    settings = ArtifactSettings(data=str(tmp_path / "artifact"))
    block = noise(5, MIB - 8)
    chunks = [index.to_bytes(8, "big") + block for index in range(12)]
    async with process(settings, file_limit=10 * MIB) as yard:
        small = await yard.push({"small": Content(b"x")})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.write(chunks)
        code, why, metadata = reason(caught.value)
        assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert metadata["limit"] == "disk"
        assert await yard.read(small.name, "small") == b"x"
        unfinished = settings.folder / "unfinished"
        await eventually(lambda: not list(unfinished.iterdir()))
    async with process(settings) as yard:
        data = b"".join(chunks)
        artifact = await yard.push({"big": Content(data)})
        assert await yard.read(artifact.name, "big") == data


async def test_files_and_folders_are_private(yard: Yard, backend: Backend) -> None:
    await yard.push({"a": Content(b"a")})
    data = backend.settings.folder
    # The database's own files are the chassis' affair.
    paths = [data, *(path for path in data.rglob("*") if not path.name.startswith("artifact.db"))]
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    assert len(modes) >= 2
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), path
