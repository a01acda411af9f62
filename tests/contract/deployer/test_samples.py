"""Sampled requests, sent by a scripted controller, registered as versions of a dataset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import duration_pb2
from modelyard.deployer.v1 import rollout_pb2

from tests.contract.deployer.registry import MODEL, PROJECT
from tests.contract.deployer.yard import DEPLOYMENT, LIVE, obeying, reason_of

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Yard
    from tests.contract.deployer.registry import Registry

on_both = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)

SAMPLED = rollout_pb2.ServingSpec(sampling=rollout_pb2.Sampling(share=0.25))
DATASET = f"{PROJECT}/datasets/churn-production-requests"


async def live(yard: Yard, version: int, serving: rollout_pb2.ServingSpec | None = None) -> int:
    async with obeying(yard.controller):
        revision = (await yard.ada.deploy(version, serving=serving)).revision
        await yard.ada.until(lambda d: d.state == LIVE and d.live_revision == revision)
        return int(revision)


@on_both
async def test_sampled_requests_become_a_version_of_a_dataset(
    yard: Yard, registry: Registry
) -> None:
    await live(yard, 1, SAMPLED)
    sampling = yard.controller.seen[-1].variants[0].serving.sampling
    assert (sampling.share, sampling.rows_per_version) == (0.25, 1_000)
    assert sampling.interval.ToSeconds() == 900
    first = await yard.controller.sample(1, "a" * 64)
    assert first == await yard.controller.sample(1, "a" * 64) == f"{DATASET}/versions/1"
    registered = registry.samples["a" * 64]
    assert registered.source.uri == f"modelyard:{DEPLOYMENT}"
    assert registered.source.query == f"requests answered by {MODEL}/versions/1, revision 1"
    assert registered.source.end_time.ToSeconds() == 2_000
    assert (registered.row_count, registered.schema[0].name) == (10, "x")
    assert (await yard.ada.get()).revisions[0].sample == first


@on_both
async def test_a_version_that_is_taken_up_again_keeps_its_samples(yard: Yard) -> None:
    await live(yard, 1, SAMPLED)
    async with obeying(yard.controller):
        plan = rollout_pb2.RolloutPlan(keep_previous_warm=True)
        await yard.ada.deploy(2, plan=plan)
        await yard.ada.until(lambda d: d.warm_revision == 1)
        await yard.ada.roll_back()
        await yard.ada.until(lambda d: d.live_revision == 3)
    sample = await yard.controller.sample(1, "b" * 64)
    assert [r.sample for r in await yard.ada.revisions()] == [sample, "", sample]


async def test_samples_that_nobody_asked_for_are_refused(yard: Yard) -> None:
    await live(yard, 1)
    wrong = [
        (yard.controller.sample(1, "c" * 64), "WRONG_STATE"),
        (yard.controller.sample(7, "c" * 64), "RESOURCE_NOT_FOUND"),
        (yard.controller.sample(1, "c" * 64, rows=0), "INVALID_FIELD"),
        (yard.controller.sample(1, "c" * 64, controller="UPPER"), "INVALID_FIELD"),
    ]
    for call, reason in wrong:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason_of(refused.value) == reason


async def test_who_may_not_write_takes_no_samples_but_may_roll_back(yard: Yard) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await yard.dora.deploy(1, serving=SAMPLED)
    assert reason_of(refused.value) == "RIGHT_MISSING"
    await live(yard, 1, SAMPLED)
    await live(yard, 2)
    async with obeying(yard.controller):
        await yard.dora.roll_back()
        await yard.ada.until(lambda d: d.live_revision == 3)


async def test_serving_that_makes_no_sense_is_refused(yard: Yard) -> None:
    second = duration_pb2.Duration(seconds=1, nanos=1_000_000)
    serving = [
        rollout_pb2.ServingSpec(sampling=sampling)
        for sampling in (
            rollout_pb2.Sampling(),
            rollout_pb2.Sampling(share=1.5),
            rollout_pb2.Sampling(share=float("nan")),
            rollout_pb2.Sampling(share=1, rows_per_version=-1),
            rollout_pb2.Sampling(share=1, max_rows_per_second=1_001),
        )
    ]
    serving += [
        rollout_pb2.ServingSpec(autoscaling=rollout_pb2.Autoscaling()),
        rollout_pb2.ServingSpec(
            autoscaling=rollout_pb2.Autoscaling(min_replica_count=3, max_replica_count=2)
        ),
        rollout_pb2.ServingSpec(
            autoscaling=rollout_pb2.Autoscaling(max_replica_count=2, target_concurrency=math.nan)
        ),
        rollout_pb2.ServingSpec(batching=rollout_pb2.Batching(max_size=1)),
        rollout_pb2.ServingSpec(batching=rollout_pb2.Batching(max_size=1_025)),
        rollout_pb2.ServingSpec(batching=rollout_pb2.Batching(max_size=2, max_delay=second)),
    ]
    for wrong in serving:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await yard.ada.deploy(1, serving=wrong)
        assert reason_of(refused.value) == "INVALID_FIELD"
