"""Automations: exactly once an occurrence, over restarts and replicas; live only if better."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient
from modelyard.builder.v1 import automation_pb2, build_pb2, execution_pb2
from modelyard.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from modelyard.metadata.v1 import (
    dataset_pb2,
    project_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    token_pb2,
)

from tests.contract.builder.automating import (
    BUILDING,
    CANCELLED,
    ENVIRONMENT,
    FAILED,
    PATIENCE,
    PENDING,
    SKIPPED,
    SUCCEEDED,
    Opening,
    Plant,
    cron,
    every,
    live_if_better,
    metric,
    moments,
)
from tests.contract.builder.production import Production
from tests.contract.builder.test_sweeps import modelyard
from tests.contract.builder.yard import until
from tests.receiver import receiving

ALL = automation_pb2.CATCH_UP_POLICY_ALL
QUEUE = automation_pb2.OVERLAP_POLICY_QUEUE
REQUESTS = "projects/default/datasets/requests"
REPORT = automation_pb2.METRIC_SOURCE_REPORT


@pytest.fixture
def opening(backend: tuple[str, str], tmp_path: Path) -> Opening:
    url, redis_url = backend
    return Opening(tmp_path, url, redis_url)


@pytest.fixture
def small(tmp_path: Path) -> Opening:
    """On SQLite alone, for what does not depend on the database."""
    return Opening(tmp_path, f"sqlite:///{tmp_path / 'builder.db'}", "")


@pytest.fixture
def backed(tmp_path: Path, backing: Production | None) -> Opening:
    """On each backing, for what several services have a part in."""
    if backing is None:
        return Opening(tmp_path, f"sqlite:///{tmp_path / 'builder.db'}", "")
    return Opening(tmp_path, backing.databases["builder"], backing.redis_url, backing)


async def test_every_night_over_a_change_of_clocks_and_a_restart(opening: Opening) -> None:
    """02:30 does not exist in Berlin on 28 March 2027: that night it is 03:00, 01:00 UTC."""
    replicas = 1 if opening.url.startswith("sqlite") else 2
    async with opening(replicas=replicas) as plant:
        made = await plant.automate(cron("30 2 * * *"), catch_up=ALL, overlap=QUEUE)
        assert made.next_time.ToDatetime(UTC) == datetime(2027, 3, 27, 1, 30, tzinfo=UTC)
        for night in (1, 2):
            plant.calendar.pass_by(days=1)
            await plant.executions(night)
    opening.calendar.pass_by(days=2)  # nobody is there to see it
    async with opening(replicas=replicas) as plant:
        await plant.executions(4)
        plant.calendar.pass_by(days=1)
        found = await plant.executions(5)
        assert moments(found) == [
            datetime(2027, 3, 27, 1, 30, tzinfo=UTC),
            datetime(2027, 3, 28, 1, 0, tzinfo=UTC),
            datetime(2027, 3, 29, 0, 30, tzinfo=UTC),
            datetime(2027, 3, 30, 0, 30, tzinfo=UTC),
            datetime(2027, 3, 31, 0, 30, tzinfo=UTC),
        ]
        assert [e.number for e in found] == [1, 2, 3, 4, 5]
        # In order and one at a time: only the first has a build.
        await plant.reach(found[0].name, BUILDING)
        assert len([b async for b in plant.client.builds.list()]) == 1
        assert {e.state for e in (await plant.executions(5))[1:]} == {PENDING}


async def test_what_was_missed_is_skipped_or_done_once(small: Opening) -> None:
    latest = automation_pb2.CATCH_UP_POLICY_LATEST
    async with small() as plant:
        await plant.automate(every(hours=1), ident="skip")
        await plant.automate(every(hours=1), ident="latest", catch_up=latest)
        plant.calendar.pass_by(hours=1)
        await plant.executions(1, "skip")
        (first,) = await plant.executions(1, "latest")
        await plant.reach(first.name, BUILDING)
    small.calendar.pass_by(hours=5, minutes=30)
    async with small() as plant:
        dropped = (await plant.executions(2, "skip"))[1]
        assert dropped.state == SKIPPED
        assert "30 min ago; 10 min is allowed" in dropped.explanation
        assert dropped.cause_explanation.endswith("every 1 h; 4 earlier missed")
        done = (await plant.executions(2, "latest"))[1]
        assert done.scheduled_time.ToDatetime(UTC) == datetime(2027, 3, 26, 18, tzinfo=UTC)
        assert done.state == SKIPPED  # its first is still building
        assert "was still BUILDING" in done.explanation


async def test_live_only_if_good_and_better(opening: Opening) -> None:
    with receiving() as receiver:
        async with opening() as plant:
            client = plant.client
            await client.environments.create("production")
            url, wanted = receiver.url(), 'automation = "daily"'
            await client.webhooks.create("told", url, filter=wanted)
            await plant.automate(cron("30 2 * * *"), deploy=live_if_better())

            first = await client.automations.run("daily", key="one")
            build = await plant.work(f1=0.65)
            refused = await plant.ended(first.name)
            assert refused.state == SKIPPED
            assert refused.build == build.name
            assert refused.version == build.version
            assert "not deployed to production" in refused.explanation
            assert "metrics.f1 0.65 is below 0.7" in refused.explanation
            assert [v.passed for v in refused.verdicts] == [False, True]
            assert not [d async for d in client.deployments.list(environment="production")]
            # The key was run before.
            assert (await client.automations.run("daily", key="one")).name == first.name

            second = await client.automations.run("daily")
            build = await plant.work(f1=0.8)
            await plant.reach(second.name, *range(3, 9))
        async with opening() as plant:  # whatever it was doing goes on
            client = plant.client
            live = await plant.ended(second.name)
            assert live.state == SUCCEEDED, live.explanation
            assert "churn/2 is live in production (revision 1)" in live.explanation
            assert "metrics.f1 0.8 is above 0.7" in live.explanation
            history = [
                r async for r in client.deployments.history("churn", environment="production")
            ]
            assert [r.version for r in history] == [build.version]
            assert history[0].reason.startswith("automation daily: ")
            assert [step.weight for step in history[0].plan.steps] == [50, 100]

            third = await client.automations.run("daily")
            await plant.work(f1=0.8)
            equal = await plant.ended(third.name)
            assert equal.state == SKIPPED
            assert "metrics.f1 0.8 is 0.8 of the live version" in equal.explanation
            fourth = await client.automations.run("daily")
            await plant.work(f1=math.nan)
            assert (await plant.ended(fourth.name)).state == SKIPPED
            posts = await asyncio.to_thread(receiver.until, 4)
    told = [json.loads(post.body) for post in posts]
    assert [event["type"].removeprefix("dev.modelyard.execution.") for event in told] == [
        "skipped",
        "succeeded",
        "skipped",
        "skipped",
    ]
    assert "0.65" in told[0]["data"]["explanation"]
    assert told[1]["data"]["version"] == build.version


async def test_a_build_that_fails_fails_the_execution(small: Opening) -> None:
    async with small() as plant:
        await plant.automate()
        started = await plant.client.automations.run("daily", key="monday")
        taken = await plant.yard.take(wait=20)
        assert taken.build.spec.labels["automation"] == "daily"
        again = await plant.client.automations.run("daily")  # by hand: it waits its turn
        assert again.state == PENDING
        await plant.yard.end(taken.lease, "TRAIN_FAILED")
        failed = await plant.ended(started.name)
        assert (failed.state, failed.failure.reason) == (FAILED, "BUILD_FAILED")
        assert "TRAIN_FAILED: so it is" in failed.explanation
        # An outside scheduler that asks again for the same day is told so by the exit status.
        asked = ("automations", "run", "daily", "--key", "monday", "--wait")
        command = await modelyard(plant.yard.stack, *asked)
        printed = (await asyncio.wait_for(command.communicate(), 60))[0].decode()
        assert (command.returncode, "TRAIN_FAILED: so it is" in printed) == (1, True), printed

        building = await plant.reach(again.name, BUILDING)
        assert (await plant.client.automations.cancel(again.name)).state == CANCELLED
        cancelled = await plant.yard.get(building.build)
        assert cancelled.state == build_pb2.BUILD_STATE_CANCELLED
        assert (await plant.client.automations.cancel(again.name)).state == CANCELLED
        await plant.client.automations.delete("daily")
        with pytest.raises(NotFoundError):
            await plant.client.automations.execution(again.name)


async def test_a_report_fires_once_a_crossing(opening: Opening) -> None:
    async with opening() as plant:
        await plant.automate(metric(REPORT, below=0.7), ident="drop", overlap=QUEUE)
        report = plant.client.automations.report
        started = [
            await report("churn", "f1", value)
            for value in (0.8, 0.69, 0.5, math.nan, 0.7, 0.6, 0.9)
        ]
        assert [len(names) for names in started] == [0, 1, 0, 0, 0, 1, 0]
        found = await plant.executions(2, "drop")
        assert [e.name for e in found] == [names[0] for names in started if names]
        assert found[0].cause_explanation == "f1 0.69 of a report by user:admin is below 0.7"
        # Many at once are one after the other.
        many = await asyncio.gather(*(report("churn", "f1", 0.1) for _ in range(8)))
        assert sum(len(names) for names in many) == 1
        series = [r async for r in plant.client.automations.reported("churn", "f1")]
        assert [r.value for r in series][:2] == [0.1, 0.1]
        assert len(series) == 15


async def test_what_metadata_knows_fires_too(opening: Opening) -> None:
    async with opening() as plant:
        client = plant.client
        await client.datasets.create_version("prices", f"{1:064x}")
        await _run(plant, f1=0.1)  # before the automations: does not count
        version = await client.versions.create("churn", plant.yard.source)
        await client.versions.evaluate(version.name, {"f1": 0.1})
        prices = automation_pb2.DatasetTrigger(dataset="projects/default/datasets/prices")
        await plant.automate(
            automation_pb2.Trigger(dataset=prices), ident="data", newest={"prices": prices.dataset}
        )
        await plant.automate(metric(automation_pb2.METRIC_SOURCE_RUN_LAST, below=0.7), ident="run")
        await plant.automate(
            metric(automation_pb2.METRIC_SOURCE_EVALUATION, below=0.7), ident="measured"
        )
        for value in (0.9, 0.6, 0.5):
            run = await _run(plant, f1=value)
            await client.versions.evaluate(version.name, {"f1": value})
        (of_run,) = await plant.executions(1, "run")
        assert of_run.cause_explanation.startswith("f1 0.6 of models/churn/runs/")
        assert of_run.occurrence != run
        (measured,) = await plant.executions(1, "measured")
        assert "evaluations/e3 is below 0.7" in measured.cause_explanation

        new = await client.datasets.create_version(
            "prices", f"{2:064x}", artifact=plant.yard.source
        )
        (of_data,) = await plant.executions(1, "data")
        assert of_data.occurrence == new.name
        building = await plant.reach(of_data.name, BUILDING)
        spec = (await plant.yard.get(building.build)).spec
        assert [(d.name, d.dataset_version) for d in spec.data] == [("prices", new.name)]


async def test_data_that_drifts_from_what_the_model_in_use_learnt_fires_once(
    backed: Opening,
) -> None:
    async with backed() as plant:
        learnt = await _data(plant, "visits", start=0)
        drift = automation_pb2.DriftTrigger(dataset=REQUESTS, alias="production", psi_above=0.3)
        trigger = automation_pb2.Trigger(drift=drift)
        await plant.automate(trigger, ident="drift", catch_up=ALL, newest={"new": drift.dataset})
        await _data(plant, "requests", start=0)
        (blind,) = await plant.executions(1, "drift")
        assert blind.state == SKIPPED
        assert "aliases/production" in blind.explanation

        version = await _trained(plant, on=learnt)
        samples = [await _data(plant, "requests", start=start) for start in (0, 60, 70, 0, 80)]
        first, second = (await plant.executions(3, "drift"))[1:]
        assert [first.occurrence, second.occurrence] == [samples[1], samples[4]]
        assert first.cause == execution_pb2.EXECUTION_CAUSE_DRIFT
        assert first.cause_explanation.startswith(
            "datasets/requests/versions/3 drifted from datasets/visits/versions/1, which "
            f"{version.partition('/')[2].partition('/')[2]} was trained on: age (PSI "
        )
        assert ", above 0.3)" in first.cause_explanation
        assert "day" not in first.cause_explanation
        spec = (await plant.yard.get((await plant.reach(first.name, BUILDING)).build)).spec
        assert [(d.name, d.dataset_version) for d in spec.data] == [("new", samples[1])]

        # It drifted before, but what is in use now was trained on other data.
        await _trained(plant, on=samples[4])
        other = await _data(plant, "requests", start=0)
        assert (await plant.executions(4, "drift"))[3].occurrence == other
        await _data(plant, "requests", start=None)
        unknown = (await plant.executions(5, "drift"))[4]
        assert unknown.state == SKIPPED
        assert "whether it drifted is not known" in unknown.explanation


async def test_data_that_drifts_from_what_the_live_version_learnt_fires(backed: Opening) -> None:
    async with backed() as plant:
        version = await _trained(plant, on=await _data(plant, "visits", start=0))
        await plant.client.environments.create("production")
        await plant.client.deployments.deploy(version, environment="production")
        await plant.client.deployments.wait("churn", environment="production", timeout=PATIENCE)
        drift = automation_pb2.DriftTrigger(
            dataset=REQUESTS, environment=ENVIRONMENT, columns=["age"]
        )
        await plant.automate(automation_pb2.Trigger(drift=drift), ident="live")
        await _data(plant, "requests", start=50)
        (of_live,) = await plant.executions(1, "live")
        assert "was trained on: age (PSI " in of_live.cause_explanation
        assert ", above 0.1)" in of_live.cause_explanation


async def _data(plant: Plant, dataset: str, *, start: float | None) -> str:
    """Register a dataset version whose ages are spread evenly from a start on."""
    schema = [] if start is None else [_column("age", start), _column("day", 0.0)]
    made = await plant.client.datasets.create_version(
        dataset, secrets.token_hex(32), schema=schema, artifact=plant.yard.source
    )
    return str(made.name)


def _column(name: str, start: float) -> dataset_pb2.Column:
    profile = dataset_pb2.ColumnProfile(
        count=1_000,
        kind=dataset_pb2.COLUMN_KIND_NUMERIC,
        min=start,
        max=start + 100,
        quantiles=[start + place for place in range(101)],
    )
    return dataset_pb2.Column(name=name, type="float64", profile=profile)


async def _trained(plant: Plant, *, on: str) -> str:
    """Register a version that a run made of some data; it is in production."""
    run = await plant.client.runs.create("churn")
    used = run_pb2.DatasetUse(role="train", dataset_version=on)
    request = run_service_pb2.IngestRunDataRequest(
        run=run.name, writer="w", end_sequence=1, datasets=[used]
    )
    async with grpc.aio.insecure_channel(plant.yard.stack.address) as channel:
        runs: Any = run_service_pb2_grpc.RunServiceStub(channel)
        stream = runs.IngestRunData(metadata=plant.yard._bearer("admin"), timeout=20)
        await stream.write(request)
        assert (await stream.read()).acknowledged_sequence == 1
        await stream.done_writing()
    version = await plant.client.versions.create("churn", plant.yard.source, run=run.name)
    await plant.client.aliases.set("churn", "production", version=version.name)
    return str(version.name)


async def _run(plant: Plant, **metrics: float) -> str:
    run = await plant.client.runs.create("churn")
    async with plant.client.runs.writer(run.name) as writer:
        await writer.log(metrics, step=0)
    await plant.client.runs.finish(run.name)
    return str(run.name)


async def test_lost_rights_suspend_and_an_update_takes_over(small: Opening) -> None:
    async with (
        small(delegation_seconds=2.0) as plant,
        grpc.aio.insecure_channel(plant.yard.stack.address) as channel,
    ):
        projects = project_service_pb2_grpc.ProjectServiceStub(channel)
        grant = token_pb2.Grant(project="projects/default", role=project_pb2.ROLE_BUILDER)
        token = token_pb2.Token(principal="user:ada", grants=[grant])
        created = await plant.yard.admin(
            projects.CreateToken, project_service_pb2.CreateTokenRequest(token=token)
        )
        await plant.client.environments.create("production")
        async with AsyncClient(plant.yard.stack.address, token=created.secret) as ada:
            action = automation_pb2.AutomationAction(
                build=build_pb2.BuildSpec(source=plant.yard.source)
            )
            wanted = automation_pb2.Automation(
                model="projects/default/models/churn", trigger=every(hours=1), action=action
            )
            made = await ada.automations.create("daily", wanted)
            assert made.principal == "user:ada"
            # Who may not deploy cannot have it deployed.
            wanted.action.deploy.environment = ENVIRONMENT
            with pytest.raises(Exception, match="DEPLOY"):
                await ada.automations.apply("daily", wanted)
        await plant.yard.admin(
            projects.RevokeToken, project_service_pb2.RevokeTokenRequest(name=created.token.name)
        )

        async def suspended() -> automation_pb2.Automation | None:
            found = await plant.client.automations.get("daily")
            return found if found.state == automation_pb2.AUTOMATION_STATE_SUSPENDED else None

        found = await until(suspended)
        assert found.suspension.reason == "RIGHT_LOST"
        assert "user:ada lost a right" in found.suspension.message
        with pytest.raises(FailedPreconditionError, match="suspended"):
            await plant.client.automations.run("daily")
        plant.calendar.pass_by(hours=3)
        taken = await plant.client.automations.enable("daily")
        assert taken.principal == "user:admin"
        assert taken.state == automation_pb2.AUTOMATION_STATE_ACTIVE
        assert taken.next_time.ToDatetime(UTC) == plant.calendar.now + timedelta(hours=1)
        plant.calendar.pass_by(hours=1)
        await plant.executions(1)


async def test_what_may_not_be_said(small: Opening) -> None:
    async with small() as plant:

        async def refused(
            field: str, trigger: automation_pb2.Trigger | None = None, **fields: object
        ) -> None:
            with pytest.raises(InvalidArgumentError, match=field):
                await plant.automate(trigger, **fields)  # type: ignore[arg-type]

        await refused("expression", cron("61 * * * *"))
        await refused("five fields", cron("0 30 2 * * *"))
        await refused("day-of-month", cron("0 0 30 2 *"))
        await refused("time_zone", cron("0 0 * * *", "Europe/Atlantis"))
        await refused("time_zone", cron("0 0 * * *", "../../etc/passwd"))
        await refused("interval", every(seconds=1))
        await refused("threshold", metric(REPORT, below=math.nan))
        await refused("trigger", automation_pb2.Trigger())
        await refused("catch_up", catch_up=77)
        await refused("automation_id", ident="No Such")
        with pytest.raises(NotFoundError, match="environments/production"):
            await plant.automate(deploy=live_if_better())
        await plant.automate(cron("0 0 * * *"))
        stale = await plant.client.automations.get("daily")
        same = await plant.client.automations.apply("daily", stale)
        assert (same.etag, same.next_time) == (stale.etag, stale.next_time)
        await plant.client.automations.disable("daily")
        assert not (await plant.client.automations.get("daily")).HasField("next_time")
        with pytest.raises(Exception, match="changed since"):
            await plant.client.automations.update(stale)
        with pytest.raises(InvalidArgumentError, match="update_mask"):
            await plant.client.automations.update(stale, fields=["model"])
