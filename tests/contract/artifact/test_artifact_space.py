"""What nothing needs goes and frees its bytes; what anything needs stays, whatever happens."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from modelyard.artifact.v1.storage_pb2 import GarbageKind

from services.artifact.blobs import unavailable
from services.artifact.blobs.disk import DiskBlobs
from services.artifact.settings import ArtifactSettings
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.stores import Store, opened, spawned, until
from tests.contract.artifact.yard import MIB, Content, noise, reason, recipe, sha

Run = Callable[[ArtifactSettings], AbstractAsyncContextManager[Store]]

HOLDER = "projects/alpha/models/churn/versions/1"
SHARED = noise(1, MIB // 2)
KEPT = {"shared": Content(SHARED), "own": Content(noise(2, MIB // 2))}
GONE = {"shared": Content(SHARED), "own": Content(noise(3, 2 * MIB))}


def quick(
    backend: Backend, *, lease: float = 0.1, grace: float = 0.0, sweep: float = 0.0
) -> ArtifactSettings:
    """Return settings by which leases and graces are over at once, and nothing sweeps by itself."""
    return replace(backend.settings, lease_seconds=lease, grace_seconds=grace, sweep_seconds=sweep)


@asynccontextmanager
async def two_trees(settings: ArtifactSettings, *, run: Run = opened) -> AsyncIterator[Store]:
    """Run a service with a tree that is held and one that is not, in the same pack."""
    async with run(settings) as store:
        yard = store.yard
        contents = [content.data for tree in (KEPT, GONE) for content in tree.values()]
        await yard.push_files(contents)
        kept = await yard.push(KEPT)
        await yard.hold(kept.name, HOLDER)
        await yard.push(GONE)
        yield store


async def test_what_nothing_needs_goes(backend: Backend) -> None:
    async with two_trees(quick(backend, lease=1.0)) as store:
        before = await store.house.usage()
        assert before.artifact_count == 2
        assert before.stored_bytes == sum(backend.sizes()) > 3 * MIB
        assert not (await store.house.sweep(dry_run=True)).items

        async def is_garbage() -> bool:
            kinds = {item.kind for item in (await store.house.sweep(dry_run=True)).items}
            return GarbageKind.GARBAGE_KIND_CHUNKS in kinds

        await until(is_garbage)
        plan = await store.house.sweep(dry_run=True)
        assert await store.house.usage() == before
        [artifact] = [item for item in plan.items if item.kind == GarbageKind.GARBAGE_KIND_ARTIFACT]
        assert artifact.size_bytes == 2.5 * MIB
        assert artifact.reason.startswith("nothing holds it; its lease ended 20")
        [pack] = [item for item in plan.items if item.kind == GarbageKind.GARBAGE_KIND_SPARSE_PACK]
        assert pack.size_bytes == 2 * MIB
        assert plan.unneeded_bytes == plan.freed_bytes > 2 * MIB

        swept = await store.house.sweep()
        kinds = [item.kind for item in swept.items]
        assert kinds.count(GarbageKind.GARBAGE_KIND_ARTIFACT) == 1

    async with opened(quick(backend, sweep=0.05)) as store:

        async def is_compact() -> bool:
            usage = await store.house.usage()
            return usage.stored_bytes < MIB + 10_000 and usage.artifact_count == 1

        await until(is_compact)
        usage = await store.house.usage()
        assert usage.stored_bytes == sum(backend.sizes())
        assert usage.needed_bytes > MIB
        kept = await store.yard.push(KEPT)
        assert store.yard.sent == 0
        assert await store.yard.pull(kept.name) == KEPT
        await store.yard.release(kept.name, HOLDER)

        async def is_empty() -> bool:
            return not backend.sizes() and not (await store.house.usage()).stored_bytes

        await until(is_empty)
        await store.yard.push(KEPT)


async def test_a_compaction_that_fails_takes_no_room(
    sqlite_disk: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_trees(quick(sqlite_disk)):
        pass
    put, failures = DiskBlobs.put, 0

    def failing(self: DiskBlobs, name: str, source: Path) -> None:
        nonlocal failures
        failures += 1
        raise unavailable()

    monkeypatch.setattr(DiskBlobs, "put", failing)
    async with opened(quick(sqlite_disk, sweep=0.05)) as store:

        async def failed_often() -> bool:
            return failures >= 4

        await until(failed_often)
        stored = (await store.house.usage()).stored_bytes
        assert stored <= sum(sqlite_disk.sizes()) + MIB + 10_000  # of the one at work, at most
        monkeypatch.setattr(DiskBlobs, "put", put)

        async def is_compact() -> bool:
            return (await store.house.usage()).stored_bytes < MIB + 10_000

        await until(is_compact)
        assert (await store.house.usage()).stored_bytes == sum(sqlite_disk.sizes())


async def test_what_is_asked_for_again_is_pardoned(backend: Backend) -> None:
    data = noise(4, 1000)
    async with opened(quick(backend, grace=1.0)) as store:
        await store.yard.write([data])
        await asyncio.sleep(0.15)
        assert not (await store.house.sweep()).items  # only marked
        assert not (await store.yard.find_missing(chunks=[sha(data)])).missing_chunk_digests
        await asyncio.sleep(1.0)
        assert not (await store.house.sweep()).items  # its mark was taken off, and it is set again
        await store.yard.commit(recipe(data))
        assert not (await store.yard.find_missing(files=[sha(data)])).missing_file_digests
        await asyncio.sleep(0.15)
        kinds = [item.kind for item in (await store.house.sweep()).items]
        assert kinds == [GarbageKind.GARBAGE_KIND_FILE]
        # Sent again while it is condemned, it is there again without a second copy.
        await store.yard.write([data])
        await store.yard.commit(recipe(data))
        assert len(backend.sizes()) == 1
        assert (await store.house.usage()).needed_bytes == len(data)


async def test_a_reader_of_what_is_swept_gets_all_or_is_refused(backend: Backend) -> None:
    tree = {f"file-{index}": Content(noise(10 + index, 100_000)) for index in range(4)}
    settings = quick(backend, sweep=0.05, lease=1.0, grace=2.0)
    async with opened(settings) as store:
        yard = store.yard
        name = (await yard.push(tree)).name
        await yard.hold(name, HOLDER)
        await asyncio.sleep(1.5)
        assert await yard.pull(name) == tree
        files = await yard.files(name)
        await yard.release(name, HOLDER)
        read = 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                for file in files:
                    assert await yard.read(name, file.path) == tree[file.path].data
                    read += 1
        assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        assert await yard.push(tree)
        assert await yard.pull(name) == tree


async def test_quota(backend: Backend) -> None:
    async with opened(quick(backend, lease=3600.0)) as store:
        small = await store.yard.push({"small": Content(b"small")})
        await store.house.set_quota(MIB)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.yard.write([noise(5, MIB)])
        code, why, metadata = reason(caught.value)
        assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert metadata["limit"] == "quota_bytes"
        assert metadata["maximum"] == str(MIB)
        assert await store.yard.read(small.name, "small") == b"small"
        usage = await store.house.usage()
        assert usage.quota_bytes == MIB
        assert usage.stored_bytes == sum(backend.sizes()) < 1000
        await store.yard.push({"fits": Content(noise(6, MIB // 2))})
        await store.house.set_quota(0)
        await store.yard.push({"big": Content(noise(5, MIB))})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.house.set_quota(-1)
        assert reason(caught.value)[1] == "INVALID_FIELD"


@pytest.mark.parametrize("call", ["rename", "unlink"])
async def test_killed_in_compaction_or_sweep(sqlite_disk: Backend, call: str) -> None:
    """With nothing but the sweeper at work, a system call is its: the kill comes before it."""
    async with two_trees(quick(sqlite_disk), run=spawned) as store:
        await asyncio.sleep(0.2)
        await store.house.sweep()
    settings = quick(sqlite_disk, sweep=1.0)
    before = sum(sqlite_disk.sizes())
    unfinished = settings.folder / "unfinished"
    async with spawned(settings) as store:
        killer = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-qq", "-o", "/dev/null", "-p", str(store.process)),
            *(f"--trace={call}", f"--inject={call}:signal=SIGKILL:when=1"),
        )
        assert await asyncio.wait_for(killer.wait(), 20) in {0, 128 + signal.SIGKILL}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.house.usage()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    left = sum(sqlite_disk.sizes()) + sum(path.stat().st_size for path in unfinished.iterdir())
    assert left >= before
    settings = replace(settings, sweep_seconds=0.1)
    async with spawned(replace(settings, temporary_seconds=0.0)) as store:

        async def is_compact() -> bool:
            usage = await store.house.usage()
            return usage.stored_bytes == sum(sqlite_disk.sizes()) < MIB + 10_000

        await until(is_compact)
        kept = await store.yard.push(KEPT)
        assert store.yard.sent == 0
        assert await store.yard.pull(kept.name) == KEPT
        assert not await store.house.verify(kept.name)
