"""Automations as tests drive them: a clock of their own, a played worker, a played controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from modelyard import AsyncClient
from modelyard.builder.v1 import automation_pb2, build_pb2, execution_pb2
from modelyard.deployer.v1 import environment_pb2, rollout_pb2
from modelyard.metadata.v1 import model_pb2

from services.builder.settings import BuilderSettings
from tests.contract.builder.production import Production
from tests.contract.builder.stack import Stack, replica, running
from tests.contract.builder.yard import Yard, until
from tests.contract.deployer.yard import READY, ScriptedController

MODEL = "projects/default/models/churn"
ENVIRONMENT = "projects/default/environments/production"
PENDING = execution_pb2.EXECUTION_STATE_PENDING
BUILDING = execution_pb2.EXECUTION_STATE_BUILDING
SUCCEEDED = execution_pb2.EXECUTION_STATE_SUCCEEDED
SKIPPED = execution_pb2.EXECUTION_STATE_SKIPPED
FAILED = execution_pb2.EXECUTION_STATE_FAILED
CANCELLED = execution_pb2.EXECUTION_STATE_CANCELLED
Execution = execution_pb2.Execution
PATIENCE = 90.0
Trigger = automation_pb2.Trigger


@dataclass(slots=True)
class Calendar:
    """A clock that a test sets."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **length: float) -> None:
        self.now += timedelta(**length)


@dataclass(slots=True)
class Plant:
    """Services with automations, and those who make and watch them."""

    yard: Yard
    calendar: Calendar

    @property
    def client(self) -> AsyncClient:
        return self.yard.client

    async def automate(
        self,
        trigger: Trigger | None = None,
        *,
        ident: str = "daily",
        deploy: automation_pb2.DeployAction | None = None,
        newest: dict[str, str] | None = None,
        **fields: Any,
    ) -> automation_pb2.Automation:
        """Create an automation."""
        action = automation_pb2.AutomationAction(
            build=build_pb2.BuildSpec(source=self.yard.source),
            newest_data=[
                automation_pb2.NewestData(name=name, dataset=dataset)
                for name, dataset in (newest or {}).items()
            ],
            deploy=deploy,
        )
        automation = automation_pb2.Automation(
            model=MODEL, trigger=trigger, action=action, **fields
        )
        return await self.client.automations.create(ident, automation)

    async def executions(self, count: int, ident: str = "daily") -> list[Execution]:
        """Return an automation's executions, oldest first, once there are so many."""

        async def enough() -> list[Execution]:
            found = [e async for e in self.client.automations.executions(ident)]
            return found[::-1] if len(found) >= count else []

        found: list[Execution] = await until(enough, seconds=PATIENCE)
        assert len(found) == count
        return found

    async def reach(self, execution: str, *states: Any) -> Execution:
        """Return an execution once it is in one of some states."""

        async def reached() -> Execution | None:
            found = await self.client.automations.execution(execution)
            return found if found.state in states else None

        found: Execution = await until(reached, seconds=PATIENCE)
        return found

    async def work(self, **metrics: float) -> build_pb2.Build:
        """Take the next build, log metrics to its run, register its version."""
        taken = await self.yard.take(wait=20)
        await self.yard.pass_phases(taken.lease)
        async with self.client.runs.writer(taken.build.run) as writer:
            await writer.log(metrics, step=0)
        await self.yard.register(taken.lease)
        return await self.yard.get(taken.build.name)

    async def ended(self, execution: str) -> Execution:
        return await self.client.automations.wait(execution, timeout=PATIENCE)


@dataclass(slots=True)
class Opening:
    """Starts the services, anew on the same data each time."""

    folder: Path
    url: str
    redis_url: str
    production: Production | None = None
    calendar: Calendar = field(
        default_factory=lambda: Calendar(datetime(2027, 3, 26, 12, tzinfo=UTC))
    )

    @asynccontextmanager
    async def __call__(
        self, *, replicas: int = 1, delegation_seconds: float = 600.0
    ) -> AsyncIterator[Plant]:
        settings = BuilderSettings(
            database_url=self.url, lease_seconds=30.0, tick_seconds=0.1, watch_seconds=0.2
        )
        shared: Any = {
            "builder": settings,
            "redis_url": self.redis_url,
            "calendar": self.calendar,
        }
        elsewhere = self.production.services(self.folder) if self.production else {}
        async with (
            running(
                self.folder, delegation_seconds=delegation_seconds, **(shared | elsewhere)
            ) as stack,
            AsyncExitStack() as others,
            Yard.open(stack) as yard,
            _controlled(stack),
        ):
            for _ in range(1, replicas):
                await others.enter_async_context(replica(stack, **shared))
            yield Plant(yard, self.calendar)


@asynccontextmanager
async def _controlled(stack: Stack) -> AsyncIterator[None]:
    """Run a controller that does all that is assigned at once."""
    async with grpc.aio.insecure_channel(stack.address) as channel:
        controller = ScriptedController(channel, stack.token("agent"))
        task = asyncio.ensure_future(_obey(controller))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _obey(controller: ScriptedController) -> None:
    while True:
        try:
            async for message in controller.watch(environment=ENVIRONMENT):
                for assignment in message.assignments:
                    states = {variant.revision: READY for variant in assignment.variants}
                    await controller.report(assignment, states)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)  # the environment is not there yet


def cron(expression: str, zone: str = "Europe/Berlin") -> Trigger:
    return Trigger(cron=automation_pb2.CronTrigger(expression=expression, time_zone=zone))


def every(**length: float) -> Trigger:
    trigger = Trigger()
    trigger.interval.interval.FromTimedelta(timedelta(**length))
    return trigger


def metric(source: Any, *, below: float, name: str = "f1") -> Trigger:
    return Trigger(
        metric=automation_pb2.MetricTrigger(
            metric=name, source=source, bound=automation_pb2.BOUND_BELOW, threshold=below
        )
    )


def live_if_better() -> automation_pb2.DeployAction:
    """Go live only if F1 > 0.7 and better than live, with half of the requests first."""
    up = model_pb2.METRIC_GOAL_MAXIMIZE
    floor = environment_pb2.MetricThreshold(metric="f1", threshold=0.7, goal=up, strict=True)
    better = environment_pb2.BetterThanLive(metric="f1", goal=up, strict=True)
    conditions = [
        environment_pb2.Gate(gate_id="f1-floor", metric_threshold=floor),
        environment_pb2.Gate(gate_id="f1-better", better_than_live=better),
    ]
    steps = [rollout_pb2.RolloutStep(weight=50), rollout_pb2.RolloutStep(weight=100)]
    plan = rollout_pb2.RolloutPlan(steps=steps)
    return automation_pb2.DeployAction(environment=ENVIRONMENT, conditions=conditions, plan=plan)


def moments(executions: list[Execution]) -> list[datetime]:
    """Return when executions were due."""
    return [e.scheduled_time.ToDatetime(UTC) for e in executions]
