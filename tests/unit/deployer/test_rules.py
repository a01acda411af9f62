"""The rules of a rollout: every path, and random sequences that may break no promise."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from services.deployer.domain import (
    Deployment,
    DeploymentState,
    EventType,
    Failure,
    Report,
    Revision,
    RevisionCause,
    RevisionOutcome,
    Step,
    VariantReport,
)
from services.deployer.rollouts import beside, rules
from services.deployer.rollouts.plans import Traffic
from tests.unit.deployer.lives import (
    AT_ONCE,
    CANARY,
    DRAINING,
    FAILED,
    IMPATIENT,
    MANUAL,
    PATIENCE,
    READY,
    START,
    STARTING,
    WARM,
    blank,
    live,
    next_step,
    preview,
    report,
    run,
    shadow,
    shares,
    tell,
    wish,
)


def test_the_first_rollout() -> None:
    deployment, told = run(wish(blank(), "v1"))
    assert (shares(deployment), told) == ({1: 0}, [])
    assert deployment.state is DeploymentState.ROLLING_OUT
    deployment, _ = run(report(deployment, r1=STARTING))
    assert shares(deployment) == {1: 0}
    deployment, _ = run(report(deployment, r1=READY))
    assert shares(deployment) == {1: 100}
    assert deployment.live_revision == 0
    deployment, told = run(report(deployment, r1=READY))
    assert deployment.live_revision == 1
    assert deployment.state is DeploymentState.LIVE
    assert told == [EventType.TRAFFIC_SHIFTED, EventType.LIVE]
    assert not rules.is_settled(deployment)
    assert rules.is_settled(report(deployment, r1=READY))


def test_nothing_is_assigned_before_its_use_is_on_record() -> None:
    wished = replace(wish(blank(), "v1"), uses=frozenset())
    assert next_step(wished, now=START, wait=IMPATIENT) is None
    assert rules.versions_in_use(wished) == {"v1"}


def test_a_replacement_drains_the_old_one() -> None:
    deployment, _ = run(wish(live(), "v2"))
    assert shares(deployment) == {1: 100, 2: 0}
    deployment, _ = run(report(deployment, r1=READY, r2=READY))
    assert shares(deployment) == {1: 0, 2: 100}
    waiting, _ = run(report(deployment, applied=False, r1=READY, r2=READY))
    assert waiting.live_revision == 1
    deployment, told = run(report(deployment, r1=READY, r2=READY))
    assert shares(deployment) == {2: 100}
    assert EventType.DRAINING in told
    deployment, told = run(report(deployment, r1=DRAINING, r2=READY))
    assert told == []
    assert rules.versions_in_use(deployment) == {"v1", "v2"}
    deployment, told = run(report(deployment, r2=READY))
    assert told == [EventType.DRAINED]
    assert rules.versions_in_use(deployment) == {"v2"}
    assert not rules.is_settled(deployment)  # the old one's use is still on record
    assert rules.is_settled(replace(deployment, uses=frozenset({"v2"})))


def test_reports_about_another_generation_move_nothing() -> None:
    deployment, _ = run(wish(live(), "v2"))
    stale = Report(deployment.assignment.generation - 1, True, (VariantReport(2, READY),))
    step = rules.receive(deployment, stale)
    assert step is not None
    assert shares(run(step.deployment)[0]) == {1: 100, 2: 0}
    newer = report(deployment, r1=READY)
    assert rules.receive(newer, stale) is None


@pytest.mark.parametrize("shifting", [False, True])
def test_a_failure_leaves_or_brings_back_what_was_live(shifting: bool) -> None:
    deployment, _ = run(wish(live(), "v2"))
    if shifting:
        deployment, _ = run(report(deployment, r1=READY, r2=READY))
    deployment, told = run(report(deployment, applied=False, r1=READY, r2=FAILED))
    assert told == [EventType.FAILED]
    assert shares(deployment) == {1: 100}
    assert deployment.state is DeploymentState.FAILED
    assert deployment.live_revision == 1
    assert deployment.desired.outcome is RevisionOutcome.FAILED
    assert deployment.failure == Failure("CRASHED", "boom")


@pytest.mark.parametrize(("shifting", "reason"), [(False, "NEVER_READY"), (True, "TIMEOUT")])
def test_no_progress_is_given_up(shifting: bool, reason: str) -> None:
    deployment, _ = run(wish(live(), "v2"))
    if shifting:
        deployment, _ = run(report(deployment, r1=READY, r2=READY))
    deployment, _ = run(deployment, wait=IMPATIENT)
    assert deployment.failure is not None
    assert deployment.failure.reason == reason
    assert shares(deployment) == {1: 100}


def test_a_newer_wish_takes_over() -> None:
    deployment, _ = run(wish(live(), "v2"))
    deployment, _ = run(wish(deployment, "v3"))
    assert shares(deployment) == {1: 100, 3: 0}
    assert deployment.revision(2).outcome is RevisionOutcome.SUPERSEDED


def test_rolling_back_says_so() -> None:
    deployment, _ = run(wish(live(), "v0", RevisionCause.ROLLBACK))
    assert deployment.state is DeploymentState.ROLLING_BACK


def test_stopping_drains_everything() -> None:
    deployment, _ = run(wish(live(), "", RevisionCause.UNDEPLOY))
    assert shares(deployment) == {}
    assert deployment.state is DeploymentState.ROLLING_OUT
    deployment, _ = run(report(deployment, r1=DRAINING))
    assert deployment.state is DeploymentState.ROLLING_OUT
    deployment, told = run(report(deployment))
    assert told == [EventType.DRAINED, EventType.STOPPED]
    assert deployment.state is DeploymentState.STOPPED
    assert rules.is_settled(replace(deployment, uses=frozenset()))


def test_a_wish_after_a_stop_does_not_count_on_what_was_live() -> None:
    deployment, _ = run(wish(live(), "", RevisionCause.UNDEPLOY))
    deployment, _ = run(wish(deployment, "v2"))
    assert shares(deployment) == {3: 0}


@pytest.mark.parametrize("seed", range(300))
def test_random_lives_break_no_promise(seed: int) -> None:
    """A controller that does anything in any order never gets an order that breaks a promise."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable sequence
    deployment, was_ready = blank(), set[int]()
    for turn in range(60):
        action = chance.random()
        if action < 0.12 or not deployment.revisions:
            deployment = any_wish(deployment, f"v{turn}", chance)
        elif action < 0.7:
            keys = {revision.key for revision in deployment.revisions if revision.running}
            states = {
                key: chance.choice([STARTING, READY, READY, READY, FAILED])
                for key in keys
                if deployment.assignment.weight(key) is not None or chance.random() < 0.5
            }
            counted = {key: any_traffic(turn, chance) for key in keys if chance.random() < 0.9}
            generation = deployment.assignment.generation
            applied = chance.random() < 0.7
            deployment = tell(deployment, states, applied=applied, traffic=counted)
            assert deployment.assignment.generation == generation
            was_ready |= {v.revision for v in deployment.report.variants if v.state is READY}
        wait = IMPATIENT if chance.random() < 0.05 else PATIENCE
        now = START + timedelta(seconds=turn)
        step = next_step(deployment, now=now, wait=wait)
        if step is None:
            continue
        before, deployment = deployment, step.deployment
        check(before, deployment, was_ready)
    # Left alone with an obedient controller, every life ends settled.
    settle(deployment)


def any_wish(deployment: Deployment, version: str, chance: random.Random) -> Deployment:
    """Wish anything that somebody may wish now."""
    plan = chance.choice([AT_ONCE, CANARY, WARM, MANUAL])
    wishes: list[Callable[[], Deployment]] = [lambda: wish(deployment, version, plan=plan)] * 3
    if deployment.revisions:
        wishes.append(lambda: wish(deployment, "", RevisionCause.UNDEPLOY))
        wishes.append(lambda: taken(rules.abort(deployment, actor="a", reason="", now=START)))
        wishes.append(lambda: taken(rules.go_on(deployment, actor="a", reason="")))
    if deployment.live is not None:
        wishes.append(lambda: shadow(deployment, version))
        wishes.append(lambda: preview(deployment, version))
    wishes += [partial(ended, deployment, found) for found in deployment.beside.values()]
    lived = [r for r in deployment.revisions if r.live_time is not None and r.version]
    wishes += [partial(go_back, deployment, revision) for revision in lived[-2:]]

    def taken(step: Step | None) -> Deployment:
        return deployment if step is None else step.deployment

    return chance.choice(wishes)()


def ended(deployment: Deployment, found: Revision) -> Deployment:
    return beside.end(deployment, found, START).deployment


def go_back(deployment: Deployment, target: Revision) -> Deployment:
    running = deployment.assignment.weight(target.key) is not None
    variant = target.key if running else 0
    return wish(deployment, target.version, RevisionCause.ROLLBACK, variant=variant)


def any_traffic(turn: int, chance: random.Random) -> Traffic:
    """Count something, and sometimes begin anew."""
    count = turn * 10 if chance.random() < 0.9 else 0
    return Traffic(count, chance.choice([0, 0, count // 2]), ((10.0, count), (math.inf, count)))


def check(before: Deployment, after: Deployment, was_ready: set[int]) -> None:
    given = shares(after)
    assert sum(given.values()) in (0, 100)
    assert {number for number, share in given.items() if share} <= was_ready
    if before.live_revision != after.live_revision and after.live_revision:
        assert before.report.weights_applied
        assert before.report.generation == before.assignment.generation
        assert before.assignment.weight(before.revision(after.live_revision).key) == 100
    assert after.assignment.generation - before.assignment.generation in (0, 1)
    if after.live is not None:
        assert after.live.key in given
    for found in (after.warm, *after.beside.values()):
        if found is not None and found.running:
            assert given.get(found.key) is not None
    extra = {v.revision for v in after.assignment.variants if v.mirror_percent or v.header_match}
    assert extra <= {found.key for found in after.beside.values()}
    assert not any(given[number] for number in extra)


def settle(deployment: Deployment) -> None:
    now, count = START + timedelta(hours=2), 10_000
    for _ in range(40):
        now, count = now + timedelta(minutes=1), count + 10_000
        deployment, _ = run(deployment, now=now, wait=1e9)
        deployment = replace(deployment, uses=rules.versions_in_use(deployment))
        if rules.is_settled(deployment):
            break
        running = {variant.revision: READY for variant in deployment.assignment.variants}
        good = Traffic(count, 0, ((10.0, count), (math.inf, count)))
        deployment = tell(deployment, running, traffic=dict.fromkeys(running, good))
        onward = rules.go_on(deployment, actor="user:ada", reason="")
        deployment = onward.deployment if onward else deployment
    assert rules.is_settled(deployment)
    state = deployment.state
    assert state in (DeploymentState.LIVE, DeploymentState.FAILED, DeploymentState.STOPPED)
    expected = {r.key: 0 for r in (deployment.warm, *deployment.beside.values()) if r is not None}
    expected |= {deployment.live.key: 100} if deployment.live else {}
    assert shares(deployment) == expected
