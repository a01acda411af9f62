"""Canaries, their analysis, shadows and warm rollbacks, told to a scripted controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelyard.deployer.v1 import deployment_pb2, rollout_pb2

from tests.contract.deployer.registry import MODEL
from tests.contract.deployer.test_rollouts import make_live
from tests.contract.deployer.yard import (
    BROKEN,
    DEPLOYMENT,
    FAILED,
    LIVE,
    READY,
    obeying,
    reason_of,
    traffic,
    weights,
)

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Yard

pytestmark = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

BOTH = {1: READY, 2: READY}
PLAN = rollout_pb2.RolloutPlan(
    steps=[
        rollout_pb2.RolloutStep(weight=5),
        rollout_pb2.RolloutStep(weight=50, manual=True),
        rollout_pb2.RolloutStep(weight=100),
    ],
    analysis=rollout_pb2.RolloutAnalysis(min_request_count=20, max_error_rate=0.05),
)


async def first_step(yard: Yard) -> Any:
    """Bring version 2 to its first share beside version 1; return the assignment in force."""
    await make_live(yard, 1)
    await yard.ada.deploy(2, plan=PLAN)
    beside = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    await yard.controller.report(beside, BOTH)
    step = await yard.controller.until(lambda a: weights(a) == {1: 95, 2: 5})
    await yard.controller.report(step, BOTH, traffic={1: traffic(900), 2: traffic(100)})
    await yard.ada.until(lambda d: d.rollout.HasField("step_start_time"))
    return step


async def test_a_canary_is_judged_and_waits_for_somebody(yard: Yard) -> None:
    step = await first_step(yard)
    await yard.controller.report(step, BOTH, traffic={1: traffic(990), 2: traffic(110)})
    waiting = await yard.ada.until(lambda d: d.rollout.wait == rollout_pb2.ROLLOUT_WAIT_ANALYSIS)
    assert (waiting.rollout.step, waiting.rollout.step_count) == (1, 3)
    assert waiting.rollout.analysis == "10 of at least 20 requests so far"
    with pytest.raises(grpc.aio.AioRpcError) as early:
        await yard.ada.change("ContinueRollout")
    assert reason_of(early.value) == "WRONG_STATE"
    counted = {1: traffic(1_800), 2: traffic(200, 1)}
    await yard.controller.report(step, BOTH, traffic=counted)
    half = await yard.controller.until(lambda a: weights(a) == {1: 50, 2: 50})
    await yard.controller.report(half, BOTH, traffic=counted)
    await yard.ada.until(lambda d: d.rollout.HasField("step_start_time"))
    counted = {1: traffic(1_900), 2: traffic(300, 1)}
    await yard.controller.report(half, BOTH, traffic=counted)
    await yard.ada.until(lambda d: d.rollout.wait == rollout_pb2.ROLLOUT_WAIT_MANUAL)
    await yard.ada.change("ContinueRollout", reason="looks good")
    await yard.controller.until(lambda a: weights(a) == {1: 0, 2: 100})
    async with obeying(yard.controller):
        live = await yard.ada.until(lambda d: d.state == LIVE)
    assert live.live_revision == 2
    assert not live.HasField("rollout")


async def test_a_failing_canary_gives_everything_back(yard: Yard) -> None:
    step = await first_step(yard)
    counted = {1: traffic(1_800), 2: traffic(200, 40)}
    await yard.controller.report(step, BOTH, traffic=counted)
    back = await yard.controller.until(lambda a: weights(a) == {1: 100})
    failed = await yard.ada.get()
    assert failed.state == FAILED
    assert failed.failure.reason == "ANALYSIS_FAILED"
    assert failed.failure.message == "error rate 40.00%, limit 5.00%"
    assert failed.live_revision == 1
    await yard.controller.report(back, {1: READY})
    await yard.ada.until(lambda d: [v.weight for v in d.variants] == [100])


async def test_a_canary_is_aborted_by_hand(yard: Yard) -> None:
    await first_step(yard)
    aborted = (await yard.ada.change("AbortRollout", reason="never mind")).deployment
    assert aborted.failure.reason == "ABORTED"
    assert aborted.failure.message == "given up by user:ada: never mind"
    await yard.controller.until(lambda a: weights(a) == {1: 100})
    with pytest.raises(grpc.aio.AioRpcError) as again:
        await yard.ada.change("AbortRollout")
    assert reason_of(again.value) == "WRONG_STATE"


async def test_a_shadow_comes_and_goes(yard: Yard) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as nothing:
        await yard.ada.shadow(2)
    assert nothing.value.code() == grpc.StatusCode.NOT_FOUND
    await make_live(yard, 1)
    answer = await yard.ada.shadow(2, mirror_percent=50)
    assert answer.revision == 2
    assigned = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    assert [v.mirror_percent for v in assigned.variants] == [0, 50]
    await yard.controller.report(assigned, BOTH)
    shadowed = await yard.ada.get()
    assert (shadowed.live_revision, shadowed.shadow_revision) == (1, 2)
    assert shadowed.state == LIVE
    await yard.ada.change("StopShadow")
    alone = await yard.controller.until(lambda a: weights(a) == {1: 100})
    await yard.controller.report(alone, {1: READY})
    ended = (await yard.ada.revisions())[0]
    assert ended.outcome == deployment_pb2.REVISION_OUTCOME_ENDED
    assert ended.cause == deployment_pb2.REVISION_CAUSE_SHADOW


async def test_a_shadow_that_breaks_harms_nobody(yard: Yard) -> None:
    await make_live(yard, 1)
    await yard.ada.shadow(2)
    assigned = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    states = {1: READY, 2: BROKEN}
    await yard.controller.report(assigned, states, failure=("CRASHED", "boom"))
    await yard.controller.until(lambda a: weights(a) == {1: 100})
    after = await yard.ada.get()
    assert (after.state, after.live_revision, after.shadow_revision) == (LIVE, 1, 0)


async def test_a_preview_comes_and_goes_beside_what_is_live(yard: Yard) -> None:
    await make_live(yard, 1)
    assert (await yard.ada.preview(2, "x-variant", "new one")).revision == 2
    assigned = await yard.controller.until(lambda a: weights(a) == {1: 100, 2: 0})
    match = rollout_pb2.HeaderMatch(name="x-variant", value="new one")
    assert assigned.variants[1].header_match == match
    assert not assigned.variants[0].HasField("header_match")
    await yard.controller.report(assigned, BOTH)
    previewed = await yard.ada.get()
    assert (previewed.live_revision, previewed.preview_revision, previewed.state) == (1, 2, LIVE)
    assert [v.header_match for v in previewed.variants] == [rollout_pb2.HeaderMatch(), match]
    await yard.ada.change("StopPreview")
    await yard.controller.until(lambda a: weights(a) == {1: 100})
    ended = (await yard.ada.revisions())[0]
    assert ended.outcome == deployment_pb2.REVISION_OUTCOME_ENDED
    assert (ended.cause, ended.header_match) == (deployment_pb2.REVISION_CAUSE_PREVIEW, match)
    with pytest.raises(grpc.aio.AioRpcError) as again:
        await yard.ada.change("StopPreview")
    assert reason_of(again.value) == "WRONG_STATE"


async def test_a_header_that_no_preview_may_have_is_refused(yard: Yard) -> None:
    names = ["", ":path", "X-Variant", "x_variant", "content-type", "grpc-timeout", "x" * 64]
    values = ["", " x", "x\n", "ü", "x" * 257]
    wrong = [(name, "x") for name in names] + [("x-variant", value) for value in values]
    for name, value in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await yard.ada.preview(1, name, value)
        assert reason_of(refused.value) == "INVALID_FIELD", (name, value)


async def test_a_rollback_to_a_warm_version_starts_nothing(yard: Yard) -> None:
    await make_live(yard, 1)
    async with obeying(yard.controller):
        await yard.ada.deploy(2, plan=rollout_pb2.RolloutPlan(keep_previous_warm=True))
        warm = await yard.ada.until(lambda d: d.warm_revision == 1)
        assert {v.revision: v.weight for v in warm.variants} == {1: 0, 2: 100}
        await yard.ada.roll_back()
        await yard.ada.until(lambda d: d.live_revision == 3 and len(d.variants) == 1)
    variants = {v.revision for a in yard.controller.seen for v in a.variants}
    assert variants == {1, 2}
    assert yard.controller.seen[-1].variants[0].version == f"{MODEL}/versions/1"
    assert yard.controller.seen[-1].deployment == DEPLOYMENT


@pytest.mark.parametrize(
    "plan",
    [
        rollout_pb2.RolloutPlan(steps=[rollout_pb2.RolloutStep(weight=5)]),
        rollout_pb2.RolloutPlan(
            steps=[rollout_pb2.RolloutStep(weight=50), rollout_pb2.RolloutStep(weight=50)]
        ),
        rollout_pb2.RolloutPlan(steps=[rollout_pb2.RolloutStep(weight=100, manual=True)]),
        rollout_pb2.RolloutPlan(analysis=rollout_pb2.RolloutAnalysis(min_request_count=1)),
        rollout_pb2.RolloutPlan(
            analysis=rollout_pb2.RolloutAnalysis(min_request_count=0, max_error_rate=0.1)
        ),
        rollout_pb2.RolloutPlan(
            analysis=rollout_pb2.RolloutAnalysis(min_request_count=1, max_error_rate=float("nan"))
        ),
        rollout_pb2.RolloutPlan(
            analysis=rollout_pb2.RolloutAnalysis(min_request_count=1, max_error_rate=0.1)
        ),
    ],
)
async def test_a_plan_that_makes_no_sense_is_refused(
    yard: Yard, plan: rollout_pb2.RolloutPlan
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await yard.ada.deploy(1, plan=plan)
    assert reason_of(refused.value) == "INVALID_FIELD"
