"""Canaries, manual steps, warm versions and shadows: the rules of what runs beside what is live."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from services.deployer.domain import (
    Deployment,
    EventType,
    Failure,
    Progress,
    Report,
    RevisionCause,
    Step,
    VariantReport,
)
from services.deployer.rollouts import rules, stepping
from services.deployer.rollouts.assigning import running_variant
from services.deployer.rollouts.plans import HeaderMatch, RolloutPlan, Traffic
from tests.unit.deployer.lives import (
    CANARY,
    FAILED,
    MANUAL,
    PATIENCE,
    READY,
    START,
    WARM,
    blank,
    live,
    preview,
    report,
    run,
    shadow,
    shares,
    tell,
    wish,
)


def canary(plan: RolloutPlan) -> Deployment:
    """Bring a second version to its first step, in force since START."""
    deployment, _ = run(wish(live(), "v2", plan=plan))
    deployment, _ = run(report(deployment, r1=READY, r2=READY))
    return run(counted(deployment, 1_000, 0))[0]


def counted(deployment: Deployment, requests: int, errors: int, ms: float = 10.0) -> Deployment:
    """Report that both answer; the first always well and within 10 ms."""
    quick = requests if ms <= 10 else min(requests, 1_000)
    good = ((10.0, requests), (100.0, requests), (math.inf, requests))
    seen = ((10.0, quick), (100.0, requests), (math.inf, requests))
    traffic = {1: Traffic(requests, 0, good), 2: Traffic(requests, errors, seen)}
    return tell(deployment, {1: READY, 2: READY}, traffic=traffic)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_canary_goes_step_by_step() -> None:
    deployment = canary(CANARY)
    assert shares(deployment) == {1: 95, 2: 5}
    assert deployment.progress.step == 1
    deployment = counted(deployment, 1_100, 1)
    held, _ = run(deployment, now=after(9))
    assert shares(held) == {1: 95, 2: 5}
    assert stepping.waits_for(held, after(9)) is stepping.Wait.HOLD
    deployment, told = run(deployment, now=after(10))
    assert told == [EventType.ANALYSIS_PASSED]
    assert shares(deployment) == {1: 50, 2: 50}
    deployment, told = run(counted(deployment, 1_200, 1), now=after(11))
    assert told == [EventType.STEP_STARTED]
    deployment, _ = run(counted(deployment, 1_300, 1), now=after(12))
    assert shares(deployment) == {1: 0, 2: 100}
    deployment, told = run(report(deployment, r1=READY, r2=READY), now=after(13))
    assert told == [EventType.TRAFFIC_SHIFTED, EventType.LIVE, EventType.DRAINING]
    assert deployment.live_revision == 2


@pytest.mark.parametrize(
    ("requests", "errors", "ms", "explanation"),
    [
        (1_100, 20, 10.0, "error rate 20.00%, limit 10.00%"),
        (1_100, 0, 100.0, "p95 latency 95.5 ms, limit 19 ms (live: 9.5 ms)"),
    ],
)
def test_a_bad_canary_is_aborted_at_once(
    requests: int, errors: int, ms: float, explanation: str
) -> None:
    deployment, told = run(counted(canary(CANARY), requests, errors, ms), now=after(1))
    assert told == [EventType.FAILED]
    assert shares(deployment) == {1: 100}
    assert deployment.failure == Failure("ANALYSIS_FAILED", explanation)


def test_too_few_requests_never_pass() -> None:
    deployment, _ = run(counted(canary(CANARY), 1_010, 0), now=after(60))
    assert shares(deployment) == {1: 95, 2: 5}
    assert stepping.waits_for(deployment, after(60)) is stepping.Wait.ANALYSIS
    deployment, _ = run(deployment, now=after(10 + PATIENCE))
    assert deployment.failure == Failure(
        "ANALYSIS_INCONCLUSIVE", "10 of at least 20 requests so far"
    )
    assert shares(deployment) == {1: 100}


def test_counts_that_begin_anew_are_compared_with_anew() -> None:
    deployment, _ = run(counted(canary(CANARY), 5, 0), now=after(60))
    assert shares(deployment) == {1: 95, 2: 5}
    assert deployment.progress.start_time == after(60)
    deployment, _ = run(counted(deployment, 105, 0), now=after(70))
    assert shares(deployment) == {1: 50, 2: 50}


def test_time_in_which_nobody_looked_does_not_count_as_waited() -> None:
    deployment, now = counted(canary(CANARY), 1_005, 0), after(2 * PATIENCE)

    def step(since: datetime) -> Step | None:
        return rules.next_step(deployment, now=now, since=since, progress_seconds=PATIENCE)

    assert step(since=now) is None
    given_up = step(since=START)
    assert given_up is not None
    assert given_up.deployment.failure is not None
    assert given_up.deployment.failure.reason == "ANALYSIS_INCONCLUSIVE"


def test_counts_alone_are_told_apart_from_news() -> None:
    before = canary(CANARY)
    assert rules.only_counted(before, counted(before, 1_100, 3))
    assert not rules.only_counted(before, tell(before, {1: READY, 2: FAILED}))


def test_a_manual_step_waits_for_somebody() -> None:
    deployment, _ = run(canary(MANUAL), now=after(10 * PATIENCE))
    assert shares(deployment) == {1: 80, 2: 20}
    assert stepping.waits_for(deployment, START) is stepping.Wait.MANUAL
    step = rules.go_on(deployment, actor="user:ada", reason="")
    assert step is not None
    assert rules.go_on(step.deployment, actor="user:ada", reason="") is None
    assert shares(run(step.deployment)[0]) == {1: 0, 2: 100}


def test_an_abort_brings_back_what_was_live() -> None:
    step = rules.abort(canary(MANUAL), actor="user:ada", reason="no", now=START)
    assert step is not None
    assert shares(step.deployment) == {1: 100}
    assert step.deployment.failure == Failure("ABORTED", "given up by user:ada: no")
    assert step.deployment.progress == Progress()
    assert rules.abort(step.deployment, actor="user:ada", reason="", now=START) is None
    silent = rules.abort(canary(MANUAL), actor="user:ada", reason="", now=START)
    assert silent is not None
    assert silent.deployment.failure == Failure("ABORTED", "given up by user:ada")


def test_the_first_version_has_nothing_to_share_with() -> None:
    deployment, _ = run(wish(blank(), "v1", plan=CANARY))
    deployment, _ = run(report(deployment, r1=READY))
    assert shares(deployment) == {1: 100}


def test_going_back_to_a_warm_version_starts_nothing() -> None:
    deployment, _ = run(wish(live(), "v2", plan=WARM))
    deployment, _ = run(report(deployment, r1=READY, r2=READY))
    deployment, told = run(report(deployment, r1=READY, r2=READY))
    assert shares(deployment) == {1: 0, 2: 100}
    assert EventType.DRAINING not in told
    assert deployment.warm_revision == 1
    deployment = report(deployment, r1=READY, r2=READY)
    deployment, _ = run(wish(deployment, "v1", RevisionCause.ROLLBACK, variant=1))
    assert shares(deployment) == {1: 0, 2: 100}
    deployment, _ = run(report(deployment, r1=READY, r2=READY))
    assert shares(deployment) == {1: 100, 2: 0}
    deployment, _ = run(report(deployment, r1=READY, r2=READY))
    assert shares(deployment) == {1: 100}
    assert (deployment.live_revision, deployment.warm_revision) == (3, 0)


def test_a_warm_version_that_died_is_not_gone_back_to_as_it_runs() -> None:
    deployment, _ = run(wish(live(), "v2", plan=WARM))
    for _ in range(2):
        deployment, _ = run(report(deployment, r1=READY, r2=READY))
    warm = deployment.revision(1)
    assert running_variant(report(deployment, r1=READY, r2=READY), warm) == 1
    deployment = report(deployment, r1=FAILED, r2=READY)
    assert running_variant(deployment, warm) == 0
    deployment, _ = run(wish(deployment, "v1", RevisionCause.ROLLBACK))
    assert shares(deployment) == {1: 0, 2: 100, 3: 0}
    for _ in range(2):
        deployment, _ = run(report(deployment, r1=FAILED, r2=READY, r3=READY))
    assert shares(deployment) == {3: 100}
    assert (deployment.live_revision, deployment.warm_revision) == (3, 0)


def test_going_back_from_a_canary_is_one_step() -> None:
    deployment, _ = run(wish(canary(MANUAL), "v1", RevisionCause.ROLLBACK, variant=1))
    assert shares(deployment) == {1: 100}
    for _ in range(2):
        deployment, _ = run(report(deployment, r1=READY))
        assert shares(deployment) == {1: 100}
    assert deployment.live_revision == 3


def test_a_preview_has_its_header_and_never_a_share() -> None:
    deployment, _ = run(preview(live(), "v2"))
    deployment = report(deployment, r1=READY, r2=READY)
    deployment, _ = run(preview(deployment, "v3"))  # which replaces the one before
    assert shares(deployment) == {1: 100, 3: 0}
    assert [v.header_match for v in deployment.assignment.variants] == [
        None,
        HeaderMatch("x-variant", "v3"),
    ]
    deployment, _ = run(wish(report(deployment, r1=READY, r3=READY), "v4", plan=CANARY))
    deployment, _ = run(report(deployment, r1=READY, r3=READY, r4=READY))
    assert shares(deployment) == {1: 95, 3: 0, 4: 5}
    deployment, told = run(report(deployment, r1=READY, r3=FAILED, r4=READY))
    assert EventType.PREVIEW_ENDED in told
    assert shares(deployment) == {1: 95, 4: 5}


def test_a_change_of_model_servers_is_told_with_its_cause() -> None:
    deployment, told = live(), []
    for wanted, why in ((1, ""), (3, "busy"), (3, "busy"), (1, ""), (0, "")):
        variant = VariantReport(1, READY, wanted_replica_count=wanted, scaling=why)
        step = rules.receive(deployment, Report(deployment.assignment.generation, True, (variant,)))
        if step is not None:
            deployment = step.deployment
            told += [entry.message for entry in step.entries if entry.type is EventType.SCALED]
    assert told == [
        "from 1 to 3 model servers: busy",
        "from 3 to 1 model servers: they were started anew",
    ]


def test_a_shadow_gets_copies_beside_a_rollout() -> None:
    deployment, _ = run(shadow(live(), "v2"))
    assert shares(deployment) == {1: 100, 2: 0}
    assert [v.mirror_percent for v in deployment.assignment.variants] == [0, 100]
    deployment = report(deployment, r1=READY, r2=READY)
    deployment, _ = run(wish(deployment, "v3", plan=CANARY))
    assert shares(deployment) == {1: 100, 2: 0, 3: 0}
    deployment, _ = run(report(deployment, r1=READY, r2=FAILED, r3=READY))
    assert deployment.shadow_revision == 0
    assert deployment.revision(2).failure == Failure("CRASHED", "boom")
    assert 2 not in shares(deployment)
    assert deployment.live_revision == 1


@pytest.mark.parametrize("wished", [shadow, preview])
def test_what_breaks_beside_a_settled_deployment_is_work_again(
    wished: Callable[[Deployment, str], Deployment],
) -> None:
    deployment, _ = run(wished(live(), "v2"))
    deployment = report(deployment, r1=READY, r2=READY)
    assert rules.is_settled(deployment)
    deployment = report(deployment, r1=READY, r2=FAILED)
    assert not rules.is_settled(deployment)
    deployment, _ = run(deployment)
    assert not deployment.beside
    assert shares(deployment) == {1: 100}
