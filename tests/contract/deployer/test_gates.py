"""Gates on the wire: refused with the numbers, NaN and missing never pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelyard.deployer.v1 import deployment_service_pb2, environment_pb2, environment_service_pb2
from modelyard.metadata.v1 import model_pb2

from tests.contract.deployer.registry import MODEL, Registry
from tests.contract.deployer.test_rollouts import make_live
from tests.contract.deployer.yard import DEPLOYMENT, ENVIRONMENT, reason_of

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Start, Yard

FLOOR = environment_pb2.Gate(
    gate_id="accuracy-floor",
    metric_threshold=environment_pb2.MetricThreshold(
        metric="accuracy", threshold=0.92, goal=model_pb2.METRIC_GOAL_MAXIMIZE
    ),
)
BETTER = environment_pb2.Gate(
    gate_id="better", better_than_live=environment_pb2.BetterThanLive(metric="accuracy")
)


async def refused(yard: Yard, version: int) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.ada.deploy(version)
    assert reason_of(caught.value) == "GATE_REFUSED"
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    return caught.value


async def test_refusals_name_each_gate_and_its_numbers(start: Start, registry: Registry) -> None:
    async with start() as yard:
        await yard.ada.create_environment(FLOOR, BETTER)
        error = await refused(yard, 1)
        assert "accuracy-floor: metrics.accuracy 0.91 is below 0.92" in (error.details() or "")
        assert "better" not in (error.details() or "")
        registry.metrics[2] = {"accuracy": math.nan}
        assert "NaN" in ((await refused(yard, 2)).details() or "")
        registry.metrics[2] = {}
        assert "has no metrics.accuracy" in ((await refused(yard, 2)).details() or "")


async def test_a_threshold_is_a_threshold(start: Start, registry: Registry) -> None:
    f1 = environment_pb2.MetricThreshold(
        metric="f1", threshold=0.7, goal=model_pb2.METRIC_GOAL_MAXIMIZE
    )
    for number, value in enumerate((0.65, 0.75, math.nan), start=1):
        registry.metrics[number] = {"f1": value}
    async with start() as yard:
        await yard.ada.create_environment(environment_pb2.Gate(gate_id="f1", metric_threshold=f1))
        assert "metrics.f1 0.65 is below 0.7" in ((await refused(yard, 1)).details() or "")
        await make_live(yard, 2)
        assert "NaN" in ((await refused(yard, 3)).details() or "")
        assert (await yard.ada.get()).live_revision == 1


async def test_a_gate_judges_again_what_changed_while_it_did(
    start: Start, registry: Registry
) -> None:
    registry.goals["accuracy"] = model_pb2.METRIC_GOAL_MAXIMIZE
    async with start() as yard:
        await yard.ada.create_environment(BETTER)
        await make_live(yard, 1)
        registry.meanwhile = lambda: make_live(yard, 4)
        assert "0.92 is below 0.94 of the live" in ((await refused(yard, 2)).details() or "")
        assert registry.meanwhile is None


async def test_better_than_live_needs_a_goal_and_progress(start: Start, registry: Registry) -> None:
    async with start() as yard:
        await yard.ada.create_environment(BETTER)
        await make_live(yard, 3)
        assert "no goal" in ((await refused(yard, 4)).details() or "")
        registry.goals["accuracy"] = model_pb2.METRIC_GOAL_MAXIMIZE
        assert "0.92 is below 0.93 of the live" in ((await refused(yard, 2)).details() or "")
        verdicts = await yard.ada.deployments(
            "CheckVersion",
            deployment_service_pb2.CheckVersionRequest(
                parent=ENVIRONMENT, version=f"{MODEL}/versions/2"
            ),
        )
        assert [v.passed for v in verdicts.verdicts] == [False]
        live = await make_live(yard, 4)
        assert live.revisions[-1].verdicts[0].passed
        journal = [e async for m in first_page(yard) for e in m.events]
        refusals = [e for e in journal if e.type == "GATE_REFUSED"]
        assert len(refusals) == 2
        assert refusals[0].actor == "user:ada"


async def first_page(yard: Yard):  # type: ignore[no-untyped-def]  # an async generator of messages
    from services.common.listing.pagination import encode_cursor

    async for message in yard.ada.journal(encode_cursor(f"journal {DEPLOYMENT}", (0,))):
        yield message
        return


async def test_environments_check_their_gates(start: Start) -> None:
    async with start() as yard:
        created = await yard.ada.create_environment(FLOOR)
        assert list(created.gates) == [FLOOR]
        for bad in (
            environment_pb2.Gate(gate_id="x"),
            environment_pb2.Gate(gate_id="X!", tests_passed=environment_pb2.TestsPassed()),
            environment_pb2.Gate(
                gate_id="x",
                metric_threshold=environment_pb2.MetricThreshold(metric="m", threshold=math.nan),
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await yard.ada.create_environment(bad, name="staging")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.ada.create_environment()
        assert reason_of(caught.value) == "RESOURCE_EXISTS"
        changed = await yard.ada.environments(
            "UpdateEnvironment",
            environment_service_pb2.UpdateEnvironmentRequest(
                environment=environment_pb2.Environment(
                    name=ENVIRONMENT, description="for real", etag=created.etag
                )
            ),
        )
        assert changed.environment.description == "for real"
        assert list(changed.environment.gates) == [FLOOR]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.ada.environments(
                "UpdateEnvironment",
                environment_service_pb2.UpdateEnvironmentRequest(
                    environment=environment_pb2.Environment(name=ENVIRONMENT, etag=created.etag)
                ),
            )
        assert reason_of(caught.value) == "ETAG_MISMATCH"


async def test_approvals_count_when_others_give_them(start: Start) -> None:
    gate = environment_pb2.Gate(gate_id="approved", approved=environment_pb2.Approved(count=1))
    async with start() as yard:
        await yard.ada.create_environment(gate)

        def approval(kind: type[Any], **fields: Any) -> Any:
            return kind(environment=ENVIRONMENT, version=f"{MODEL}/versions/1", **fields)

        approve = approval(environment_service_pb2.ApproveVersionRequest, reason="fine")
        await yard.ada.environments("ApproveVersion", approve)
        error = await refused(yard, 1)
        assert "0 of 1 approvals by others than user:ada" in (error.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.reader.environments("ApproveVersion", approve)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await yard.bob.environments("ApproveVersion", approve)
        listed = await yard.reader.environments(
            "ListApprovals", approval(environment_service_pb2.ListApprovalsRequest)
        )
        assert [a.principal for a in listed.approvals] == ["user:ada", "user:bob"]
        withdraw = approval(environment_service_pb2.WithdrawApprovalRequest)
        await yard.bob.environments("WithdrawApproval", withdraw)
        await refused(yard, 1)
        await yard.bob.environments("ApproveVersion", approve)
        await make_live(yard, 1)
