"""Writers, holders, readers, sweeps, compaction and kill -9 at once: nothing held is ever lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import grpc
import pytest
from modelyard.artifact.v1.storage_pb2 import DamagedFile

from services.artifact.settings import ArtifactSettings
from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.stores import Store, spawned, until
from tests.contract.artifact.yard import MIB, Content, Tree, noise, reason

T = TypeVar("T")

CHUNK = 32 * 1024
POOL = [noise(1_000_000 + index, CHUNK) for index in range(24)]
FILES, CHUNKS = 3, 5
WRITERS = 3
HELD_EACH = 4


class Restarted:
    """A service that is killed now and then, and what its clients see of it."""

    def __init__(self, settings: ArtifactSettings) -> None:
        self._settings = settings
        self._life = AsyncExitStack()
        self._up = asyncio.Event()
        self._store: Store | None = None
        self.kills = 0

    async def start(self) -> None:
        self._store = await self._life.enter_async_context(spawned(self._settings))
        self._up.set()

    async def stop(self) -> None:
        """Kill it."""
        self._up.clear()
        await self._life.aclose()

    async def restart(self) -> None:
        await self.stop()
        self.kills += 1
        await self.start()

    async def use(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do something, again and again while the service is away."""
        while True:
            await self._up.wait()
            assert self._store is not None
            try:
                return await work(self._store)
            except grpc.aio.AioRpcError as error:
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
                    raise
            except (asyncio.InvalidStateError, grpc.aio.UsageError):  # the channel was closed
                continue
            except asyncio.CancelledError:  # so it was, in the middle of a call
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
            await asyncio.sleep(0.05)


@dataclass(slots=True)
class Ledger:
    """What is held for certain, and what was ever stored."""

    held: dict[str, Tree] = field(default_factory=dict)
    pushed: int = 0
    pulled: int = 0
    sent: int = 0


def make_tree(source: random.Random) -> dict[str, Content]:
    """Make a tree of which 30 % is shared with others."""
    tree = {}
    for index in range(FILES):
        chunks = [
            source.choice(POOL) if source.random() < 0.3 else source.randbytes(CHUNK)
            for _ in range(CHUNKS)
        ]
        tree[f"file-{index}"] = Content(b"".join(chunks))
    return tree


async def push_and_hold(tree: Tree, holder: str, ledger: Ledger, store: Store) -> str:
    """Push a tree until it is held: what is swept between two calls is sent again."""
    while True:
        sent = store.yard.sent
        try:
            name = (await store.yard.push(tree, size=CHUNK)).name
            await store.yard.hold(name, holder)
        except grpc.aio.AioRpcError as error:
            is_refused = error.code() is grpc.StatusCode.FAILED_PRECONDITION
            if not is_refused or reason(error)[1] != "BYTES_MISSING":
                raise
        else:
            return name
        finally:
            ledger.sent += store.yard.sent - sent


async def release(name: str, holder: str, store: Store) -> None:
    await store.yard.release(name, holder)


async def pull(name: str, store: Store) -> Tree:
    return await store.yard.pull(name)


async def verify(name: str, store: Store) -> list[DamagedFile]:
    return await store.house.verify(name)


async def write(service: Restarted, ledger: Ledger, seed: int, end: float) -> None:
    """Push and hold trees; release the oldest, so that there is always something to sweep."""
    source = random.Random(seed)  # noqa: S311 - bytes for a test
    own: list[tuple[str, str]] = []
    while time.monotonic() < end:
        tree, holder = make_tree(source), f"projects/alpha/runs/{seed}-{ledger.pushed}"
        name = await service.use(partial(push_and_hold, tree, holder, ledger))
        ledger.held[name] = tree
        ledger.pushed += 1
        own.append((name, holder))
        while len(own) > HELD_EACH:
            old, holder = own.pop(0)
            del ledger.held[old]
            await service.use(partial(release, old, holder))


async def read(service: Restarted, ledger: Ledger, end: float) -> None:
    """Pull trees that are held: each must be there, wholly, for as long as it is held."""
    source = random.Random(1)  # noqa: S311 - a choice of a test
    while time.monotonic() < end:
        if not ledger.held:
            await asyncio.sleep(0.01)
            continue
        name, tree = source.choice(list(ledger.held.items()))
        try:
            found = await service.use(partial(pull, name))
        except grpc.aio.AioRpcError as error:
            if name in ledger.held:
                raise AssertionError(f"{name} is held and was not read") from error
        else:
            assert found == tree
            ledger.pulled += 1


async def kill_now_and_then(service: Restarted, end: float) -> None:
    source = random.Random(2)  # noqa: S311 - moments of a test
    while time.monotonic() < end:
        await asyncio.sleep(source.uniform(0.5, 3.0))
        await service.restart()


async def check(service: Restarted, ledger: Ledger, backend: Backend) -> None:
    """All that is held is whole; what is not is gone, but for what half full packs may keep."""
    for name, tree in ledger.held.items():
        assert await service.use(partial(pull, name)) == tree
        assert not await service.use(partial(verify, name))
    live = {
        content.data[at : at + CHUNK]
        for tree in ledger.held.values()
        for content in tree.values()
        for at in range(0, len(content.data), CHUNK)
    }
    least = len(live) * CHUNK

    async def is_swept() -> bool:
        usage = await service.use(lambda s: s.house.usage())
        return (
            usage.artifact_count == len(ledger.held)
            and least <= usage.needed_bytes < least + 10_000
            and usage.stored_bytes == sum(backend.sizes())
            and usage.stored_bytes <= usage.needed_bytes / 0.5
        )

    await until(is_swept, seconds=30)
    dead, left = ledger.sent - least, sum(backend.sizes()) - least
    # Of little that is dead, what half full packs may keep is a larger share.
    share = 0.1 if dead > 100 * MIB else 0.2
    assert left <= share * dead, f"{left} of {dead} dead bytes are left"


@pytest.mark.parametrize(
    "seconds", [6.0, pytest.param(120.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
async def test_nothing_held_is_lost_and_the_rest_goes(backend: Backend, seconds: float) -> None:
    service = Restarted(
        replace(
            backend.settings,
            pack_bytes=MIB,
            lease_seconds=2.0,
            grace_seconds=0.5,
            sweep_seconds=0.05,
            temporary_seconds=5.0,
            scrub_bytes_per_second=1e7,
            scrub_days=1e-5,
        )
    )
    ledger = Ledger()
    await service.start()
    try:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for seed in range(WRITERS):
                tasks.create_task(write(service, ledger, seed, end))
            tasks.create_task(read(service, ledger, end))
            tasks.create_task(kill_now_and_then(service, end))
        assert service.kills
        assert ledger.pulled
        await check(service, ledger, backend)
    finally:
        await service.stop()
