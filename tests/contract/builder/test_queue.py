"""The queue: who is next, who may not yet and why, what is tried again, and cancelling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from modelyard.builder.v1 import build_pb2
from modelyard.errors import InvalidArgumentError

from services.builder.settings import BuilderSettings
from tests.contract.builder.stack import replica
from tests.contract.builder.yard import RUNNING, Lease, Yard, refused

GIB = 1024**3
PROVISION = build_pb2.PHASE_KIND_PROVISION
Resources = build_pb2.Resources


@pytest.fixture
def lease_seconds() -> float:
    """Nobody falls silent here."""
    return 60.0


def memory(gib: int) -> Resources:
    return Resources(memory_bytes=gib * GIB)


async def order(yard: Yard, model: str = "churn", **fields: Any) -> str:
    spec = build_pb2.BuildSpec(source=yard.source, **fields)
    return (await yard.create(spec, model=model)).name


async def taken(yard: Yard, worker: str = "w1", **told: Any) -> str:
    """Take what comes next at once; empty when nothing does."""
    return str((await yard.take(worker, wait=0, **told)).build.name)


async def waits_for(yard: Yard, name: str) -> tuple[str, str]:
    waiting = (await yard.get(name)).waiting
    reason = build_pb2.WaitingReason.Name(waiting.reason).removeprefix("WAITING_REASON_")
    return reason, waiting.message


async def test_priority_then_age_then_what_fits_and_whose_pool(yard: Yard) -> None:
    old, new = await order(yard), await order(yard)
    low, high = await order(yard, priority=-5), await order(yard, priority=7)
    large = await order(yard, priority=9, resources=memory(64))
    far = await order(yard, priority=50, pool="gpu")
    assert await taken(yard, total=memory(128), capacity=memory(32)) == high
    assert await taken(yard, capacity=memory(64)) == large
    assert [await taken(yard) for _ in range(4)] == [old, new, low, ""]
    assert await waits_for(yard, far) == ("NO_WORKER", "no worker of the pool gpu is there")
    assert await taken(yard, "g1", pool="gpu", total=memory(16), max_builds=3) == far

    # Nobody of the pool has so much: refused, with figures. Of an unknown pool it waits.
    too_large = order(yard, pool="gpu", resources=memory(17))
    refusal = await refused(too_large, "CAPACITY_EXCEEDED")
    assert refusal.metadata == {
        "pool": "gpu",
        "resource": "memory",
        "asked": str(17 * GIB),
        "largest": str(16 * GIB),
    }
    assert "17 GiB" in refusal.message
    await order(yard, pool="tpu", resources=memory(1000))
    fits = await order(yard, pool="gpu", resources=memory(16))
    assert (await waits_for(yard, fits))[0] == "WORKERS_BUSY"

    (worker,) = await yard.client.queue.workers(pool="gpu")
    assert (worker.worker, list(worker.builds), worker.max_builds) == ("g1", [far], 3)
    assert worker.alive
    assert worker.total.memory_bytes == 16 * GIB
    assert {w.worker for w in await yard.client.queue.workers()} == {"w1", "g1"}
    listed = [b async for b in yard.client.builds.list(filter='pool = "gpu" AND state = QUEUED')]
    assert [(b.name, b.waiting.reason) for b in listed] == [
        (fits, build_pb2.WAITING_REASON_WORKERS_BUSY)
    ]


@asynccontextmanager
async def another(yard: Yard, backend: tuple[str, str]) -> AsyncIterator[Yard]:
    """Run another replica where the database can have one; else it is the same again."""
    url, redis_url = backend
    if url.startswith("sqlite"):
        yield yard
        return
    settings = BuilderSettings(database_url=url)
    async with (
        replica(yard.stack, builder=settings, redis_url=redis_url) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield yard.at(channel)


async def test_limits_hold_whoever_takes_at_once(yard: Yard, backend: tuple[str, str]) -> None:
    queue = yard.client.queue
    assert not (await queue.limits()).HasField("effective_max_running_builds")
    await queue.set_limits(max_running=5)
    await queue.set_limits("small", max_running=2)
    for number in range(12):
        await order(yard, "small" if number % 2 else "large")

    async with another(yard, backend) as other:
        places = (yard, other)
        takes = (places[n % 2].take(f"w{n % 16}", wait=0) for n in range(32))
        answers = await asyncio.gather(*takes)
    leases: dict[str, Lease] = {a.build.name: a.lease for a in answers if a.HasField("lease")}
    assert len(leases) == sum(a.HasField("lease") for a in answers) == 5
    models = [(await yard.get(name)).model.rpartition("/")[2] for name in leases]
    assert models.count("small") <= 2
    standing = await queue.limits()
    assert (standing.running_builds, standing.queued_builds) == (5, 7)
    waiting = next(n for n in [b.name async for b in yard.client.builds.list()] if n not in leases)
    reason, message = await waits_for(yard, waiting)
    assert reason == "PROJECT_LIMIT"
    assert "5 builds of projects/default run, of at most 5" in message

    # One ends: whoever waits is woken for the next.
    woken = asyncio.create_task(yard.take("late", wait=20))
    await yard.end(leases.popitem()[1], "TRAIN_FAILED")
    assert (await asyncio.wait_for(woken, 5)).HasField("lease")
    assert await taken(yard) == ""
    await queue.set_limits(max_running=None)
    while await taken(yard):
        pass
    small = await queue.limits("small")
    assert (small.running_builds, small.effective_max_running_builds) == (2, 2)
    last = [b async for b in yard.client.builds.list(filter="state = QUEUED")][-1]
    assert (await waits_for(yard, last.name))[0] == "MODEL_LIMIT"
    with pytest.raises(InvalidArgumentError):
        await queue.set_limits(max_running=-1)


async def test_each_class_of_failure_has_its_budget(yard: Yard) -> None:
    retries = build_pb2.RetryBudget(worker_lost=1, out_of_memory=2, timeout=0)
    name = await order(yard, retries=retries)
    for attempt, reason in enumerate(("OUT_OF_MEMORY", "WORKER_STOPPED", "WORKER_LOST"), start=1):
        lease = (await yard.take(f"w{attempt}")).lease
        assert lease.attempt == attempt
        await yard.phase(lease, PROVISION, RUNNING)
        await yard.end(lease, reason)
    assert (await waits_for(yard, name))[0] in ("RETRY_DELAY", "WORKERS_BUSY")
    # Its third failure: it has memory to spend, but what fails three times is poison.
    lease = (await yard.take("w4")).lease
    await yard.end(lease, "OUT_OF_MEMORY")
    build = await yard.get(name)
    assert (build.state, build.attempt) == (build_pb2.BUILD_STATE_FAILED, 4)
    assert build.failure.reason == "OUT_OF_MEMORY"
    past = [(a.attempt, a.failure.reason, a.worker) for a in build.past_attempts]
    assert past == [
        (1, "OUT_OF_MEMORY", "w1"),
        (2, "WORKER_STOPPED", "w2"),
        (3, "WORKER_LOST", "w3"),
    ]
    assert len({a.run for a in build.past_attempts}) == 3
    for reason in ("TIMEOUT", "TRAIN_FAILED", "DISK_FULL"):
        name = await order(yard, retries=retries)
        await yard.end((await yard.take()).lease, reason)
        build = await yard.get(name)
        assert (build.state, build.failure.reason) == (build_pb2.BUILD_STATE_FAILED, reason)


async def test_a_cancel_reaches_the_worker_at_once(yard: Yard) -> None:
    name = await order(yard)
    lease = (await yard.take()).lease
    watching = asyncio.create_task(yard.extend(lease, wait=20))
    started = time.monotonic()
    quiet = await yard.extend(lease, wait=0.3)
    assert not quiet.cancel
    assert time.monotonic() - started >= 0.3
    assert not watching.done()
    await yard.cancel(name)
    started = time.monotonic()
    assert (await watching).cancel
    assert time.monotonic() - started < 0.9, "that was the poll, not the wake-up"
    assert (await yard.extend(lease, wait=20)).cancel
    assert (await yard.cancel(name)).state == build_pb2.BUILD_STATE_CANCELLING
    await yard.end(lease)
    assert (await yard.cancel(name)).state == build_pb2.BUILD_STATE_CANCELLED
    await refused(yard.extend(lease, wait=20), "LEASE_LOST")


async def test_a_cancel_and_a_registration_race(yard: Yard) -> None:
    outcomes = set()
    for number in range(6):
        name = await order(yard, f"race{number}")
        lease = (await yard.take()).lease
        await yard.pass_phases(lease)
        register = asyncio.create_task(yard.register(lease))
        await asyncio.sleep(0.004 * number)
        await yard.cancel(name)
        try:
            version = await register
        except Exception:  # cancelled first: then nothing may be registered
            version = ""
            await yard.end(lease)
        build = await yard.get(name)
        assert build.version == version
        expected = build_pb2.BUILD_STATE_SUCCEEDED if version else build_pb2.BUILD_STATE_CANCELLED
        assert build.state == expected
        models = [v.name async for v in yard.client.versions.list(model=f"race{number}")]
        assert models == ([version] if version else [])
        outcomes.add(build.state)
    assert build_pb2.BUILD_STATE_SUCCEEDED in outcomes
