"""The rules of a rollout: every path, and random sequences that may break no promise."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.common.names import DeploymentName
from services.deployer import rules
from services.deployer.domain import (
    Assignment,
    Deployment,
    DeploymentState,
    EventType,
    Failure,
    Report,
    Revision,
    RevisionCause,
    RevisionOutcome,
    VariantReport,
    VariantState,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(hours=1)
READY, FAILED = VariantState.READY, VariantState.FAILED
STARTING, DRAINING = VariantState.STARTING, VariantState.DRAINING


def blank() -> Deployment:
    return Deployment(
        name=DeploymentName("p", "production", "churn"),
        state=DeploymentState.PENDING,
        failure=None,
        desired_revision=0,
        live_revision=0,
        assignment=Assignment(),
        report=Report(),
        revisions=(),
        create_time=START,
        update_time=START,
    )


def wish(
    deployment: Deployment, version: str, cause: RevisionCause = RevisionCause.DEPLOY
) -> Deployment:
    number = deployment.desired_revision + 1
    revision = Revision(number, version, f"a-{version}", "", "user:ada", "", cause, START)
    wished = rules.wish(deployment, revision).deployment
    return replace(wished, uses=wished.uses | {version} - {""})


def report(deployment: Deployment, *, applied: bool = True, **states: VariantState) -> Deployment:
    """Report on the present assignment; `r1=READY` is revision 1."""
    return tell(deployment, {int(key[1:]): states[key] for key in states}, applied=applied)


def tell(
    deployment: Deployment, states: dict[int, VariantState], *, applied: bool = True
) -> Deployment:
    """Report on the present assignment, by revision."""
    boom = Failure("CRASHED", "boom")
    variants = tuple(
        VariantReport(number, state, boom if state is FAILED else None)
        for number, state in sorted(states.items())
    )
    step = rules.receive(deployment, Report(deployment.assignment.generation, applied, variants))
    return deployment if step is None else step.deployment


def run(
    deployment: Deployment, *, deadline: datetime = LATER
) -> tuple[Deployment, list[EventType]]:
    """Take steps until there is only waiting left."""
    told: list[EventType] = []
    while (step := rules.next_step(deployment, now=START, deadline=deadline)) is not None:
        deployment = step.deployment
        told += [entry.type for entry in step.entries]
    return deployment, told


def shares(deployment: Deployment) -> dict[int, int]:
    return {variant.revision: variant.weight for variant in deployment.assignment.variants}


def live(version: str = "v1") -> Deployment:
    deployment, _ = run(wish(blank(), version))
    deployment, _ = run(report(deployment, r1=READY))
    deployment, _ = run(report(deployment, r1=READY))
    return run(report(deployment, r1=READY))[0]


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
    assert rules.next_step(wished, now=START, deadline=START) is None
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
    deployment, _ = run(deployment, deadline=START)
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
            cause = chance.choice(list(RevisionCause)) if deployment.revisions else None
            version = "" if cause is RevisionCause.UNDEPLOY else f"v{turn}"
            deployment = wish(deployment, version, cause or RevisionCause.DEPLOY)
        elif action < 0.7:
            states = {
                revision.number: chance.choice([STARTING, READY, READY, READY, FAILED])
                for revision in deployment.revisions
                if revision.running
                and (
                    deployment.assignment.weight(revision.number) is not None
                    or chance.random() < 0.5
                )
            }
            generation = deployment.assignment.generation
            deployment = tell(deployment, states, applied=chance.random() < 0.7)
            assert deployment.assignment.generation == generation
            was_ready |= {v.revision for v in deployment.report.variants if v.state is READY}
        deadline = START if chance.random() < 0.05 else LATER
        step = rules.next_step(deployment, now=START, deadline=deadline)
        if step is None:
            continue
        before, deployment = deployment, step.deployment
        check(before, deployment, was_ready)
    # Left alone with an obedient controller, every life ends settled.
    settle(deployment)


def check(before: Deployment, after: Deployment, was_ready: set[int]) -> None:
    given = shares(after)
    assert sum(given.values()) in (0, 100)
    assert {number for number, share in given.items() if share} <= was_ready
    if before.live_revision != after.live_revision and after.live_revision:
        assert before.report.weights_applied
        assert before.report.generation == before.assignment.generation
        assert before.assignment.weight(after.live_revision) == 100
    assert after.assignment.generation - before.assignment.generation in (0, 1)
    if after.live_revision:
        assert after.live_revision in given


def settle(deployment: Deployment) -> None:
    for _ in range(20):
        deployment, _ = run(deployment)
        deployment = replace(deployment, uses=rules.versions_in_use(deployment))
        if rules.is_settled(deployment):
            break
        running = {variant.revision: READY for variant in deployment.assignment.variants}
        deployment = tell(deployment, running)
    assert rules.is_settled(deployment)
    state = deployment.state
    assert state in (DeploymentState.LIVE, DeploymentState.FAILED, DeploymentState.STOPPED)
    live_shares = {deployment.live_revision: 100} if deployment.live_revision else {}
    assert shares(deployment) == live_shares
