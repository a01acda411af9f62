"""Streams that resume: what controllers watch, and the journal that people follow."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelyard.deployer.v1 import (
    deployment_service_pb2,
    environment_pb2,
    environment_service_pb2,
)

from tests.contract.deployer.registry import MODEL, PROJECT, Registry
from tests.contract.deployer.test_rollouts import make_live
from tests.contract.deployer.yard import (
    BROKEN,
    DEPLOYMENT,
    ENVIRONMENT,
    FAILED,
    READY,
    obeying,
    reason_of,
    weights,
)

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Yard


async def first(yard: Yard, cursor: str = "", environment: str = ENVIRONMENT) -> Any:
    async with asyncio.timeout(10):
        async for message in yard.controller.watch(cursor, environment):
            return message
    raise AssertionError


async def test_a_watch_begins_with_all_there_is(yard: Yard) -> None:
    empty = await first(yard)
    assert (list(empty.assignments), empty.complete) == ([], True)
    await make_live(yard, 1)
    for environment in (ENVIRONMENT, "projects/-/environments/-", f"{PROJECT}/environments/-"):
        message = await first(yard, environment=environment)
        assert message.complete
        assert [weights(a) for a in message.assignments] == [{1: 100}]


async def test_a_watch_goes_on_with_the_newest_of_what_changed(yard: Yard) -> None:
    await make_live(yard, 1)
    cursor = (await first(yard)).cursor
    nothing = await first(yard, cursor)
    assert (list(nothing.assignments), nothing.complete) == ([], True)
    await make_live(yard, 2)
    missed = await first(yard, cursor)
    assert [weights(a) for a in missed.assignments] == [{2: 100}]


async def test_bad_watches_are_refused(yard: Yard) -> None:
    for cursor, environment, reason in (
        ("garbage", ENVIRONMENT, "INVALID_CURSOR"),
        ("", f"{PROJECT}/environments/missing", "RESOURCE_NOT_FOUND"),
        ("", "somewhere", "INVALID_NAME"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first(yard, cursor, environment)
        assert reason_of(caught.value) == reason


async def test_people_are_no_controllers(yard: Yard) -> None:
    request = deployment_service_pb2.GetDeploymentRequest(name=DEPLOYMENT)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.reader.deployments("GetDeployment", request)
    assert reason_of(caught.value) == "RESOURCE_NOT_FOUND"
    await make_live(yard, 1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.reader.stop()
    assert reason_of(caught.value) == "RIGHT_MISSING"


async def test_a_report_about_what_was_never_assigned_is_refused(yard: Yard) -> None:
    await make_live(yard, 1)
    assignment = (await first(yard)).assignments[0]
    assignment.generation += 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.controller.report(assignment, {1: READY})
    assert reason_of(caught.value) == "INVALID_FIELD"


async def test_the_journal_resumes_without_gap_or_repeat(yard: Yard) -> None:
    await yard.ada.deploy(1, reason="the first")
    cursor, told = "", []
    async for message in yard.ada.journal():
        assert message.deployment.name == DEPLOYMENT
        cursor = message.cursor
        break
    async with obeying(yard.controller):
        # Reconnect after each message.
        async with asyncio.timeout(10):
            while "LIVE" not in told:
                async for message in yard.ada.journal(cursor):
                    cursor = message.cursor
                    told += [event.type for event in message.events]
                    break
    wanted = ["VARIANT_READY", "TRAFFIC_SHIFTED", "LIVE"]
    assert [kind for kind in told if kind != "DEPLOY_REQUESTED"] == wanted


async def test_a_version_gone_in_the_meantime_fails_the_wish(
    yard: Yard, registry: Registry
) -> None:
    await make_live(yard, 1)
    await make_live(yard, 2)
    del registry.metrics[1]
    async with obeying(yard.controller):
        await yard.ada.roll_back()
        failed = await yard.ada.until(lambda d: d.state == FAILED)
    assert failed.failure.reason == "FETCH_FAILED"
    assert failed.live_revision == 2


async def test_one_controller_at_a_time(yard: Yard) -> None:
    await make_live(yard, 1)
    assignment = await yard.controller.until(lambda a: weights(a) == {1: 100})
    with pytest.raises(grpc.aio.AioRpcError) as second:
        async for _ in yard.controller.watch(controller="another"):
            pass
    assert second.value.code() is grpc.StatusCode.ABORTED
    assert reason_of(second.value) == "LEASE_LOST"
    assert "controller scripted" in (second.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as stranger:
        await yard.controller.report(assignment, {1: BROKEN}, controller="another")
    assert reason_of(stranger.value) == "LEASE_LOST"
    await yard.controller.report(assignment, {1: READY})


async def test_watches_that_overlap_are_of_one_controller(yard: Yard) -> None:
    async def begin(environment: str, controller: str) -> None:
        async with aclosing(yard.controller.watch("", environment, controller=controller)) as watch:
            await anext(watch)

    async with asyncio.timeout(30):
        await begin("projects/p/environments/-", "wide")
        for other in (ENVIRONMENT, "projects/-/environments/-"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await begin(other, "another")
            assert reason_of(refused.value) == "LEASE_LOST"
            assert "controller wide" in (refused.value.details() or "")
            await begin(other, "wide")


async def test_watches_of_everything_leave_external_environments_out(yard: Yard) -> None:
    await make_live(yard, 1)
    external = environment_pb2.Environment(target=environment_pb2.TARGET_KIND_EXTERNAL)
    request = environment_service_pb2.CreateEnvironmentRequest(
        parent="projects/p", environment_id="elsewhere", environment=external
    )
    await yard.ada.environments("CreateEnvironment", request)
    elsewhere = "projects/p/environments/elsewhere"
    deploy = deployment_service_pb2.DeployVersionRequest(
        parent=elsewhere, version=f"{MODEL}/versions/1"
    )
    await yard.ada.deployments("DeployVersion", deploy)

    async def seen(environment: str, controller: str) -> set[str]:
        watch = yard.controller.watch("", environment, controller=controller)
        async with aclosing(watch):
            async for message in watch:
                if message.assignments:
                    return {a.deployment for a in message.assignments}
        raise AssertionError

    async with asyncio.timeout(30):
        assert await seen("projects/-/environments/-", "scripted") == {DEPLOYMENT}
        assignment = (await first(yard)).assignments[0]
        assignment.deployment = f"{elsewhere}/deployments/churn"
        with pytest.raises(grpc.aio.AioRpcError) as held:
            assignment.generation = 100
            await yard.controller.report(assignment, {1: READY}, controller="theirs")
        assert reason_of(held.value) == "INVALID_FIELD"  # never assigned; nobody holds it yet
        assert await seen(elsewhere, "theirs") == {f"{elsewhere}/deployments/churn"}
