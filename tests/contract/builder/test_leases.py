"""Leases: who has a build, who loses it, and what a former holder can still do (nothing)."""

from __future__ import annotations

import asyncio

from modelyard.builder.v1 import build_pb2
from modelyard.metadata.v1 import run_pb2

from tests.contract.builder.conftest import LEASE_SECONDS, Start
from tests.contract.builder.yard import FAILED, RUNNING, SUCCEEDED, Yard, lines, refused, until

PROVISION, TRAIN = build_pb2.PHASE_KIND_PROVISION, build_pb2.PHASE_KIND_TRAIN


async def test_the_oldest_build_first_with_a_run_of_its_own(yard: Yard) -> None:
    first, second = await yard.order(), await yard.order()
    assert first.state == build_pb2.BUILD_STATE_QUEUED
    taken = await yard.take()
    assert taken.build.name == first.name
    assert (taken.lease.attempt, taken.build.state) == (1, build_pb2.BUILD_STATE_RUNNING)
    run = await yard.client.runs.get(taken.build.run)
    assert run.build == first.name
    assert (await yard.take()).build.name == second.name
    assert not (await yard.take(wait=0)).HasField("lease")


async def test_whoever_waits_is_woken(yard: Yard) -> None:
    waiting = asyncio.create_task(yard.take(wait=20))
    order = await yard.order()
    taken = await asyncio.wait_for(waiting, 5)
    assert taken.build.name == order.name


async def test_two_workers_never_get_one_build(yard: Yard) -> None:
    orders = {(await yard.order()).name for _ in range(4)}
    takes = [yard.take(f"w{n}", wait=0) for n in range(8)]
    names = [t.build.name for t in await asyncio.gather(*takes) if t.HasField("lease")]
    assert len(names) == len(set(names))
    while (more := await yard.take(wait=0)).HasField("lease"):
        names.append(more.build.name)
    assert set(names) == orders


async def test_signs_of_life_keep_the_lease(yard: Yard) -> None:
    await yard.order()
    lease = (await yard.take()).lease
    for _ in range(4):
        await asyncio.sleep(LEASE_SECONDS / 2)
        answer = await yard.extend(lease)
        assert not answer.cancel
        assert answer.delegation


async def test_a_silent_worker_loses_the_build_and_can_do_nothing_more(yard: Yard) -> None:
    order = await yard.order()
    first = await yard.take("w1")
    await yard.pass_phases(first.lease)
    second = await yard.take("w2", wait=20)
    assert second.build.name == order.name
    assert second.lease.attempt == 2
    assert second.lease.fence > first.lease.fence
    assert second.build.run != first.build.run
    assert second.build.phases[0].state == build_pb2.PHASE_STATE_PENDING

    zombie = first.lease
    await refused(yard.extend(zombie), "LEASE_LOST")
    await refused(yard.phase(zombie, PROVISION, RUNNING), "LEASE_LOST")
    await refused(yard.send(zombie, (1, lines("late"))), "LEASE_LOST")
    await refused(yard.register(zombie), "LEASE_LOST")
    await refused(yard.end(zombie, "TRAIN_FAILED"), "LEASE_LOST")

    await yard.pass_phases(second.lease)
    version = await yard.register(second.lease)
    await refused(yard.register(zombie), "LEASE_LOST")
    versions = [v.name async for v in yard.client.versions.list(model="churn")]
    assert versions == [version]
    assert (await yard.client.versions.get(version)).run == second.build.run

    async def lost_run_failed() -> bool:
        run = await yard.client.runs.get(first.build.run)
        return run.state == run_pb2.RUN_STATE_FAILED

    await until(lost_run_failed)
    lost = [e for e in await yard.events(order.name) if e.state_changed.failure.reason]
    assert [e.state_changed.failure.reason for e in lost] == ["WORKER_LOST"]
    assert lost[0].state_changed.state == build_pb2.BUILD_STATE_QUEUED


async def test_three_lost_workers_are_enough(yard: Yard) -> None:
    order = await yard.order()
    for attempt in (1, 2, 3):
        assert (await yard.take(f"w{attempt}", wait=20)).lease.attempt == attempt

    async def ended() -> bool:
        return (await yard.get(order.name)).state == build_pb2.BUILD_STATE_FAILED

    await until(ended)
    build = await yard.get(order.name)
    assert build.failure.reason == "WORKER_LOST"
    assert not (await yard.take(wait=0)).HasField("lease")


async def test_a_worker_may_hand_a_build_back(yard: Yard) -> None:
    await yard.order()
    lease = (await yard.take()).lease
    await yard.end(lease, "WORKER_STOPPED")
    again = await yard.take("w2", wait=0)
    assert again.lease.attempt == 2


async def test_a_restart_of_the_services_costs_no_lease(start: Start) -> None:
    async with start() as yard:
        await yard.order()
        taken = await yard.take()
    async with start() as yard:
        await yard.extend(taken.lease)
        await yard.pass_phases(taken.lease)
        assert await yard.register(taken.lease)


async def test_a_queued_build_is_cancelled_at_once(yard: Yard) -> None:
    order = await yard.order()
    assert (await yard.cancel(order.name)).state == build_pb2.BUILD_STATE_CANCELLED
    assert (await yard.cancel(order.name)).state == build_pb2.BUILD_STATE_CANCELLED
    assert not (await yard.take(wait=0)).HasField("lease")


async def test_a_running_build_is_cancelled_once_its_processes_are_gone(yard: Yard) -> None:
    order = await yard.order()
    taken = await yard.take()
    await yard.phase(taken.lease, PROVISION, RUNNING)
    assert (await yard.cancel(order.name)).state == build_pb2.BUILD_STATE_CANCELLING
    assert (await yard.extend(taken.lease)).cancel
    await yard.end(taken.lease)
    build = await yard.get(order.name)
    assert build.state == build_pb2.BUILD_STATE_CANCELLED
    assert build.phases[0].state == build_pb2.PHASE_STATE_CANCELLED
    assert build.phases[1].state == build_pb2.PHASE_STATE_PENDING
    await refused(yard.end(taken.lease), "LEASE_LOST")

    async def run_cancelled() -> bool:
        run = await yard.client.runs.get(taken.build.run)
        return run.state == run_pb2.RUN_STATE_CANCELLED

    await until(run_cancelled)


async def test_a_cancelled_build_whose_worker_died_is_cancelled(yard: Yard) -> None:
    order = await yard.order()
    await yard.take()
    await yard.cancel(order.name)

    async def cancelled() -> bool:
        return (await yard.get(order.name)).state == build_pb2.BUILD_STATE_CANCELLED

    await until(cancelled)


async def test_phases_come_in_order_and_repeats_change_nothing(yard: Yard) -> None:
    order = await yard.order()
    lease = (await yard.take()).lease
    await refused(yard.phase(lease, TRAIN, RUNNING), "WRONG_STATE")
    await refused(yard.phase(lease, PROVISION, SUCCEEDED), "WRONG_STATE")
    await refused(yard.phase(lease, PROVISION, FAILED), "INVALID_FIELD")
    await yard.phase(lease, PROVISION, RUNNING)
    await yard.phase(lease, PROVISION, RUNNING)
    await yard.phase(lease, PROVISION, SUCCEEDED)
    await refused(yard.register(lease), "WRONG_STATE")
    await yard.end(lease, "SOURCE_INVALID")
    build = await yard.get(order.name)
    assert build.failure.reason == "SOURCE_INVALID"
    events = await yard.events(order.name)
    assert [e.phase_changed.state for e in events if e.HasField("phase_changed")] == [2, 3]


async def test_registration_is_repeatable_and_needs_its_bytes(yard: Yard) -> None:
    order = await yard.order(aliases=["candidate"], labels={"team": "risk"})
    lease = (await yard.take()).lease
    await yard.pass_phases(lease)
    missing = f"projects/default/artifacts/{'0' * 64}"
    await refused(yard.register(lease, missing), "BYTES_MISSING")
    version = await yard.register(lease)
    assert await yard.register(lease) == version
    build = await yard.get(order.name)
    assert (build.state, build.version) == (build_pb2.BUILD_STATE_SUCCEEDED, version)
    assert build.artifact == yard.source
    found = await yard.client.versions.get(version)
    assert found.tests_passed
    assert list(found.aliases) == ["candidate"]
    assert found.labels["team"] == "risk"
    assert (await yard.client.runs.get(build.run)).state == run_pb2.RUN_STATE_SUCCEEDED
