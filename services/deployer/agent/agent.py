"""The target agent: listens to the deployer, keeps every deployment, reports back.

The deployer may be away for as long as it likes: what was assigned last goes on
running, and is brought back from disk when the agent itself starts again.
"""

from __future__ import annotations

import asyncio
import logging

from services.common.errors import Reason, ServiceError
from services.common.names import DeploymentName
from services.deployer.agent.control_plane import ControlPlane, Told
from services.deployer.agent.data_plane import DataPlane
from services.deployer.agent.envoy_admin import EnvoyUnreachableError
from services.deployer.agent.keeper import DeploymentKeeper, Limits
from services.deployer.agent.preparing import Preparer, environment_of, variant_key
from services.deployer.agent.sampling import Samples
from services.deployer.agent.scaling import Scaling
from services.deployer.agent.state import KnownAssignments, Ports
from services.deployer.domain import Assignment, Report

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)
COUNT_SECONDS = 1.0
IDLE_COUNT_SECONDS = 3.0
FINAL = frozenset({Reason.RESOURCE_NOT_FOUND, Reason.INVALID_FIELD})


class Agent:
    """Carries out the assignments of its environments on this machine."""

    def __init__(
        self,
        *,
        control_plane: ControlPlane,
        data_plane: DataPlane,
        preparer: Preparer,
        known: KnownAssignments,
        ports: Ports,
        limits: Limits,
    ) -> None:
        self._control_plane = control_plane
        self._data_plane = data_plane
        self._preparer = preparer
        self._known = known
        self._ports = ports
        self._limits = limits
        self._samples = Samples(control_plane, data_plane.sample_files)
        self._scaling = Scaling(data_plane)
        self._keepers: dict[DeploymentName, DeploymentKeeper] = {}
        self._to_tell: dict[DeploymentName, Report] = {}
        self._telling = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, assignment in self._known.all().items():
                self._assign(tasks, name, assignment)
            tasks.create_task(self._report())
            tasks.create_task(self._notice_crashes())
            tasks.create_task(self._count())
            tasks.create_task(self._samples.run(self._known.all))
            tasks.create_task(self._scaling.run())
            await self._follow(tasks)

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Follow the deployer for ever; while it is away nothing changes."""
        attempt = 0
        while True:
            try:
                async for told in self._control_plane.watch():
                    attempt = 0
                    await self._take(tasks, told)
            except (ServiceError, OSError) as error:  # OSError: it cannot be written down
                level = logging.WARNING if attempt == 0 else logging.DEBUG
                logger.log(level, "deployer away", extra={"error": str(error)})
            await asyncio.sleep(RECONNECT_SECONDS[min(attempt, len(RECONNECT_SECONDS) - 1)])
            attempt += 1

    async def _take(self, tasks: asyncio.TaskGroup, told: Told) -> None:
        """Write down what is assigned, then act upon it."""
        gone = set(self._keepers) - set(told.assignments) if told.everything else set()
        self._known.keep(told.assignments, only=told.everything)
        for name, assignment in told.assignments.items():
            self._assign(tasks, name, assignment)
        for name in gone:
            self._assign(tasks, name, Assignment())
        known = self._known.all().values()
        needed = {variant.artifact for a in known for variant in a.variants}
        await self._preparer.prune(needed)

    def _assign(
        self, tasks: asyncio.TaskGroup, name: DeploymentName, assignment: Assignment
    ) -> None:
        keeper = self._keepers.get(name)
        if keeper is None:
            keeper = self._keepers[name] = self._keeper(name)
            tasks.create_task(self._keep(name, keeper))
        keeper.assign(assignment)

    async def _keep(self, name: DeploymentName, keeper: DeploymentKeeper) -> None:
        """Let a keeper work for as long as anything of its deployment is left."""
        await keeper.run()
        del self._keepers[name]

    def _keeper(self, name: DeploymentName) -> DeploymentKeeper:
        return DeploymentKeeper(
            name,
            port=self._ports.of(environment_of(name)),
            data_plane=self._data_plane,
            preparer=self._preparer,
            limits=self._limits,
            tell=lambda report: self._tell(name, report),
        )

    async def _notice_crashes(self) -> None:
        while True:
            failure = await self._data_plane.next_failure()
            for name, keeper in self._keepers.items():
                if variant_key(name, failure.key.revision) == failure.key:
                    keeper.crashed(failure.key.revision, failure.error)

    async def _count(self) -> None:
        """Read what Envoy counted, again and again: soon while shares change, else less often."""
        while True:
            shifting = any(keeper.is_shifting for keeper in self._keepers.values())
            await asyncio.sleep(COUNT_SECONDS if shifting else IDLE_COUNT_SECONDS)
            if not self._keepers:
                continue
            try:
                counted = await self._data_plane.traffic()
            except EnvoyUnreachableError:
                continue
            except Exception:  # whatever it is: counts are not worth what runs
                logger.exception("traffic not counted")
                continue
            for keeper in self._keepers.values():
                keeper.count(counted)

    def _tell(self, name: DeploymentName, report: Report) -> None:
        if report.generation:  # 0: nobody assigned it any more
            self._to_tell[name] = report
            self._telling.set()

    async def _report(self) -> None:
        """Send the newest report of each deployment, for as long as it takes."""
        while True:
            await self._telling.wait()
            self._telling.clear()
            for name, report in list(self._to_tell.items()):
                if await self._send(name, report) and self._to_tell.get(name) is report:
                    del self._to_tell[name]
            if self._to_tell:
                self._telling.set()

    async def _send(self, name: DeploymentName, report: Report) -> bool:
        """Send a report; say whether it need not be sent again."""
        address = f"127.0.0.1:{self._ports.of(environment_of(name))}"
        try:
            await self._control_plane.report(name, report, address=address)
        except (ServiceError, OSError) as error:
            extra = {"deployment": str(name), "error": str(error)}
            if isinstance(error, ServiceError) and error.reason in FINAL:
                logger.warning("report refused", extra=extra)
                return True
            logger.info("report not sent, soon again", extra=extra)
            await asyncio.sleep(RECONNECT_SECONDS[-1])
            return False
        return True
