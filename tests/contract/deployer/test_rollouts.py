"""Rollouts step by step: nothing unready gets a request, every end is fully old or fully new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from modelyard.deployer.v1 import deployment_pb2

from tests.contract.deployer.registry import MODEL, PROJECT, Registry
from tests.contract.deployer.yard import (
    BROKEN,
    DEPLOYMENT,
    FAILED,
    LIVE,
    READY,
    STARTING,
    STOPPED,
    obeying,
    reason_of,
    until,
    weights,
)

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Start, Yard


pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


async def make_live(yard: Yard, version: int) -> deployment_pb2.Deployment:
    async with obeying(yard.controller):
        revision = (await yard.ada.deploy(version)).revision
        return await yard.ada.until(
            lambda d: d.live_revision == revision and [v.weight for v in d.variants] == [100]
        )


async def test_each_step_waits_for_the_controller(yard: Yard, registry: Registry) -> None:
    answer = await yard.ada.deploy(1, reason="the first")
    assert answer.revision == 1
    first = await yard.controller.until(lambda a: weights(a) == {1: 0})
    assert first.variants[0].version == f"{MODEL}/versions/1"
    assert (f"{MODEL}/versions/1", DEPLOYMENT) in registry.uses
    await yard.controller.report(first, {1: STARTING}, applied=True)
    rolling = await yard.ada.get()
    assert rolling.state == deployment_pb2.DEPLOYMENT_STATE_ROLLING_OUT
    assert rolling.live_revision == 0
    await yard.controller.report(first, {1: READY})
    shift = await yard.controller.until(lambda a: weights(a) == {1: 100})
    assert (await yard.ada.get()).live_revision == 0
    await yard.controller.report(shift, {1: READY}, applied=True)
    live = await yard.ada.until(lambda d: d.state == LIVE)
    assert [v.weight for v in live.variants] == [100]
    assert live.revisions[0].reason == "the first"
    assert live.revisions[0].actor == "user:ada"


async def test_the_old_version_goes_once_the_new_one_answers(
    yard: Yard, registry: Registry
) -> None:
    await make_live(yard, 1)
    await yard.ada.deploy(2)
    beside = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    await yard.controller.report(beside, {1: READY, 2: READY})
    shift = await yard.controller.until(lambda a: weights(a) == {1: 0, 2: 100})
    await yard.controller.report(shift, {1: READY, 2: READY}, applied=False)
    assert (await yard.ada.get()).live_revision == 1
    await yard.controller.report(shift, {1: READY, 2: READY}, applied=True)
    alone = await yard.controller.until(lambda a: weights(a) == {2: 100})
    draining = deployment_pb2.VARIANT_STATE_DRAINING
    await yard.controller.report(alone, {1: draining, 2: READY})
    assert (f"{MODEL}/versions/1", DEPLOYMENT) in registry.uses
    await yard.controller.report(alone, {2: READY})
    await yard.ada.until(lambda d: [v.revision for v in d.variants] == [2])
    await until(lambda: (f"{MODEL}/versions/1", DEPLOYMENT) not in registry.uses)
    outcomes = [r.outcome for r in await yard.ada.revisions()]
    assert outcomes == [
        deployment_pb2.REVISION_OUTCOME_LIVE,
        deployment_pb2.REVISION_OUTCOME_REPLACED,
    ]


async def test_a_version_that_never_gets_ready_fails_and_the_old_one_stays(yard: Yard) -> None:
    await make_live(yard, 1)
    await yard.ada.deploy(2)
    beside = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    why = ("NEVER_READY", "not ready after 120 s\nImportError: no module named x")
    await yard.controller.report(beside, {1: READY, 2: BROKEN}, failure=why)
    failed = await yard.ada.until(lambda d: d.state == FAILED)
    assert failed.failure.reason == "NEVER_READY"
    assert "ImportError" in failed.failure.message
    assert failed.live_revision == 1
    without = await yard.controller.until(lambda a: weights(a) == {1: 100})
    await yard.controller.report(without, {1: READY})
    await yard.ada.until(lambda d: [v.revision for v in d.variants] == [1])
    assert all(weights(a).get(2, 0) == 0 for a in yard.controller.seen)


async def test_no_progress_ends_in_a_failure(start: Start) -> None:
    async with start(progress_seconds=0.5) as yard:
        await yard.ada.create_environment()
        await yard.ada.deploy(1)
        failed = await yard.ada.until(lambda d: d.state == FAILED)
        assert failed.failure.reason == "NEVER_READY"
        assert failed.live_revision == 0


async def test_a_newer_wish_supersedes(yard: Yard) -> None:
    await make_live(yard, 1)
    await yard.ada.deploy(2)
    await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    await yard.ada.deploy(3)
    beside = await yard.controller.until(lambda a: weights(a) == {1: 100, 3: 0})
    assert beside.variants[1].version == f"{MODEL}/versions/3"
    revisions = {r.number: r.outcome for r in await yard.ada.revisions()}
    assert revisions[2] == deployment_pb2.REVISION_OUTCOME_SUPERSEDED
    async with obeying(yard.controller):
        await yard.ada.until(lambda d: d.live_revision == 3)


async def test_rollback_brings_the_version_before_back(yard: Yard) -> None:
    await make_live(yard, 1)
    await make_live(yard, 2)
    async with obeying(yard.controller):
        answer = await yard.ada.roll_back(reason="complaints")
        assert answer.revision == 3
        live = await yard.ada.until(lambda d: d.live_revision == 3 and d.state == LIVE)
    revision = next(r for r in live.revisions if r.number == 3)
    assert revision.version == f"{MODEL}/versions/1"
    assert revision.restored_revision == 1
    assert revision.cause == deployment_pb2.REVISION_CAUSE_ROLLBACK
    assert [r.number for r in await yard.ada.revisions()] == [3, 2, 1]


async def test_rollback_needs_something_that_was_live(yard: Yard) -> None:
    await make_live(yard, 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.roll_back()
    assert reason_of(caught.value) == "NOTHING_TO_ROLL_BACK"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.roll_back(7)
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"


async def test_stop_and_start_again(yard: Yard, registry: Registry) -> None:
    await make_live(yard, 1)
    async with obeying(yard.controller):
        await yard.ada.stop()
        stopped = await yard.ada.until(lambda d: d.state == STOPPED)
        assert stopped.live_revision == 0
        assert not stopped.variants
        await until(lambda: not registry.uses)
        again = await yard.ada.roll_back()
        live = await yard.ada.until(lambda d: d.state == LIVE)
        assert live.live_revision == again.revision


async def test_deploying_what_is_live_changes_nothing(yard: Yard) -> None:
    await make_live(yard, 1)
    answer = await yard.ada.deploy(1)
    assert answer.revision == 1
    assert len(await yard.ada.revisions()) == 1


async def test_repeats_and_etags(yard: Yard) -> None:
    request_id = "0a4e7d5e-3f0e-4f0e-9a64-6a2f8f0c7b11"
    first = await yard.ada.deploy(1, request_id=request_id)
    again = await yard.ada.deploy(1, request_id=request_id)
    assert first == again
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.deploy(2, request_id=request_id)
    assert reason_of(caught.value) == "REQUEST_ID_REUSED"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.deploy(2, etag="17")
    assert reason_of(caught.value) == "ETAG_MISMATCH"
    await yard.ada.deploy(2, etag=first.deployment.etag)


async def test_who_lost_the_right_deploys_nothing(yard: Yard, registry: Registry) -> None:
    await make_live(yard, 1)
    registry.suspended.add("ada")
    await yard.ada.deploy(2)
    failed = await yard.ada.until(lambda d: d.state == FAILED)
    assert failed.failure.reason == "RIGHT_LOST"
    assert failed.live_revision == 1
    assert all(2 not in weights(assignment) for assignment in yard.controller.seen)


async def test_grants_need_the_right_of_who_deployed(start: Start, registry: Registry) -> None:
    async with start() as yard:
        await yard.ada.create_environment()
        await make_live(yard, 1)
        await yard.ada.deploy(2)
        beside = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
        assert (await yard.controller.grant(beside.variants[1].artifact)).grant == "delegation:ada"
        registry.lost.add("ada")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.controller.grant(beside.variants[1].artifact)
        assert reason_of(caught.value) == "RIGHT_MISSING"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.controller.grant(f"{PROJECT}/artifacts/{'f' * 64}")
        assert reason_of(caught.value) == "WRONG_STATE"


async def test_rights_and_names(yard: Yard) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.reader.deploy(1)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.reader.get()
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.deploy(99)
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"


async def test_a_restart_in_the_middle_goes_on(start: Start) -> None:
    async with start() as yard:
        await yard.ada.create_environment()
        await yard.ada.deploy(1)
        await yard.controller.until(lambda a: weights(a) == {1: 0})
    async with start() as yard:
        beside = await yard.controller.until(lambda a: weights(a) == {1: 0})
        await yard.controller.report(beside, {1: READY})
        shift = await yard.controller.until(lambda a: weights(a) == {1: 100})
    async with start() as yard:
        await yard.controller.report(shift, {1: READY})
        await yard.ada.until(lambda d: d.state == LIVE)
