"""Damage is found before somebody needs the bytes, told file by file, and repaired by a push."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest

from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.stores import Store, opened, until
from tests.contract.artifact.test_artifact_damage import flip
from tests.contract.artifact.yard import MIB, Content, noise, reason, sha

SHARED = noise(1, 2 * MIB)
FIRST = {
    "a/shared": Content(SHARED + b"first"),
    "a/sound": Content(noise(2, 1000)),
    "copy": Content(SHARED + b"first"),
}
SECOND = {"shared": Content(SHARED + b"second")}
HOLDER = "projects/alpha/models/churn/versions/1"


async def pushed(store: Store) -> tuple[str, str]:
    """Push two trees that share a chunk in a pack of its own."""
    await store.yard.push_files([SHARED])
    return (await store.yard.push(FIRST)).name, (await store.yard.push(SECOND)).name


def flip_large(data: bytes) -> bytes:
    return flip(data) if len(data) > MIB else data


async def test_verify_and_repair(backend: Backend) -> None:
    async with opened(backend.settings) as store:
        first, second = await pushed(store)
        assert not await store.house.verify(first)
        backend.damage(flip_large)
        damaged = sha(SHARED[MIB:])
        found = await store.house.verify(first)
        assert [file.path for file in found] == ["a/shared", "copy"]
        assert {file.sha256 for file in found} == {sha(SHARED + b"first").hex()}
        assert {file.chunk_sha256 for file in found} == {damaged.hex()}
        assert (await store.house.usage()).damaged_chunk_count == 1

        # Whatever shares the chunk is known to be damaged, and everything else is not.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.yard.hold(second, HOLDER)
        assert reason(caught.value)[1] == "BYTES_MISSING"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.yard.read(second, "shared")
        assert reason(caught.value)[:2] == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
        assert await store.yard.read(first, "a/sound") == FIRST["a/sound"].data

        # One of the files is pushed again: that repairs all that had the chunk.
        sent = store.yard.sent
        await store.yard.push(SECOND)
        assert store.yard.sent - sent == MIB
        assert not await store.house.verify(first)
        assert (await store.house.usage()).damaged_chunk_count == 0
        for name, tree in ((first, FIRST), (second, SECOND)):
            await store.yard.hold(name, HOLDER)
            assert await store.yard.pull(name) == tree


async def test_what_was_mended_in_place_counts_again(backend: Backend) -> None:
    async with opened(backend.settings) as store:
        first, second = await pushed(store)
        backend.damage(flip_large)
        assert await store.house.verify(second)
        backend.damage(flip_large)
        assert not await store.house.verify(second)
        await store.yard.hold(first, HOLDER)


async def test_damaged_manifest(backend: Backend) -> None:
    async with opened(backend.settings) as store:
        first, _ = await pushed(store)
        backend.damage(lambda _: b"")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.house.verify(first)
        assert reason(caught.value)[:2] == (grpc.StatusCode.DATA_LOSS, "CORRUPT_BYTES")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await store.house.verify(first[:-1] + ("0" if first[-1] != "0" else "1"))
        assert reason(caught.value)[1] == "RESOURCE_NOT_FOUND"


async def test_scrubber(backend: Backend) -> None:
    async with opened(replace(backend.settings, scrub_bytes_per_second=0.0)) as store:
        await pushed(store)
    backend.damage(flip_large)
    settings = replace(backend.settings, scrub_bytes_per_second=1e9, scrub_days=1e-6)
    async with opened(settings) as store:

        async def is_found() -> bool:
            return (await store.house.usage()).damaged_chunk_count == 1

        await until(is_found)
        asked = await store.yard.find_missing(
            files=[sha(SHARED), sha(FIRST["a/sound"].data)], chunks=[sha(SHARED[MIB:])]
        )
        assert asked.missing_file_digests == [sha(SHARED)]
        assert asked.missing_chunk_digests == [sha(SHARED[MIB:])]
        await store.yard.push(SECOND)
        assert (await store.house.usage()).damaged_chunk_count == 0
