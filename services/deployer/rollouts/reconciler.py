"""The reconcile loop: makes what is so into what was wished, step by step.

Each replica looks at every deployment in motion; a lease lets one of them drive
it. A step is computed from the locked row and written with the lease's epoch
checked, in one transaction, so a replica that was thought dead can do nothing.
Where metadata has to be told something, it is told before the row says so.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from services.common.errors import Reason, ServiceError
from services.common.events import EventBus
from services.common.names import DeploymentName
from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import Event
from services.deployer.controllers.delegations import LOST, Delegations
from services.deployer.domain import Deployment, Failure, RevisionOutcome
from services.deployer.metadata import Metadata
from services.deployer.rollouts import beside, journal, rules
from services.deployer.settings import DeployerSettings
from services.deployer.store import crossings
from services.deployer.store import deployments as store

logger = logging.getLogger(__name__)

MAX_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive one deployment, until somebody else takes it."""

    name: DeploymentName
    epoch: int
    start_time: datetime


class Reconciler:
    """Drives the deployments that are in motion."""

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        *,
        metadata: Metadata,
        delegations: Delegations,
        settings: DeployerSettings,
    ) -> None:
        self._database = database
        self._bus = bus
        self._metadata = metadata
        self._delegations = delegations
        self._settings = settings
        # Nobody else can have a SQLite file open: after a crash its lease is ours at once.
        alone = settings.database_url.startswith("sqlite")
        self._holder = "alone" if alone else secrets.token_hex(8)
        self._driving: dict[DeploymentName, asyncio.Task[None]] = {}
        self._again: set[DeploymentName] = set()
        self._failures: dict[DeploymentName, tuple[int, float]] = {}

    async def run(self) -> None:
        """Drive deployments until cancelled."""
        logger.info("driving deployments", extra={"holder": self._holder})
        async with asyncio.TaskGroup() as tasks:
            with self._bus.follow(journal.WORK) as queue:
                while True:
                    await self._look(tasks)
                    await self._wait(queue)

    async def _wait(self, queue: asyncio.Queue[Event]) -> None:
        """Wait for an event, or a tick."""
        try:
            async with asyncio.timeout(self._settings.tick_seconds):
                await queue.get()
        except TimeoutError:
            return
        while not queue.empty():
            queue.get_nowait()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        try:
            names = await self._database.read(lambda tx: store.unsettled(tx.connection))
        except ServiceError as error:
            logger.warning("deployments not read, soon again", extra={"error": error.message})
            return
        for name in names:
            if name in self._driving:
                self._again.add(name)
            elif not self._backing_off(name):
                self._driving[name] = tasks.create_task(self._drive(name))

    async def _drive(self, name: DeploymentName) -> None:
        """Drive one deployment until it waits; one that fails harms no other."""
        try:
            self._again.add(name)
            while name in self._again:
                self._again.discard(name)
                await self._advance(name)
            self._failures.pop(name, None)
        except ServiceError as error:
            extra = {"deployment": str(name), "reason": error.reason, "error": error.message}
            logger.warning("deployment not driven, later again", extra=extra)
            self._back_off(name)
        except Exception:
            logger.exception("deployment not driven", extra={"deployment": str(name)})
            self._back_off(name)
        finally:
            del self._driving[name]

    def _back_off(self, name: DeploymentName) -> None:
        count = self._failures.get(name, (0, 0.0))[0] + 1
        delay = min(MAX_BACKOFF_SECONDS, 2.0 ** (count - 1))
        self._failures[name] = (count, asyncio.get_running_loop().time() + delay)

    def _backing_off(self, name: DeploymentName) -> bool:
        return self._failures.get(name, (0, 0.0))[1] > asyncio.get_running_loop().time()

    async def _advance(self, name: DeploymentName) -> None:
        lease = await self._database.write(lambda tx: self._lease(tx, name))
        if lease is None:
            return
        deployment = await self._database.read(
            lambda tx: store.find_deployment(tx.connection, name)
        )
        if deployment is None:
            return
        await self._start_uses(lease, deployment)
        while await self._database.write(lambda tx: self._step(tx, lease)):
            pass
        await self._end_uses(lease)
        after, _ = await self._database.read(lambda tx: _with_uses(tx, name))
        if rules.is_settled(after):
            await self._database.write(lambda tx: _settle(tx, lease))

    def _lease(self, tx: Transaction, name: DeploymentName) -> Lease | None:
        taken = crossings.take_lease(
            tx.connection,
            name,
            self._holder,
            now=datetime.now(UTC),
            seconds=self._settings.lease_seconds,
        )
        return None if taken is None else Lease(name, *taken)

    def _step(self, tx: Transaction, lease: Lease) -> bool:
        """Take the next step, if there is one and the lease is still ours."""
        deployment = _locked(tx, lease)
        step = rules.next_step(
            deployment,
            now=datetime.now(UTC),
            since=lease.start_time,
            progress_seconds=self._settings.progress_seconds,
        )
        if step is not None:
            journal.record(tx, deployment, step)
        return step is not None

    async def _start_uses(self, lease: Lease, deployment: Deployment) -> None:
        """Have metadata know every version that is about to run, before it does."""
        for version in sorted(rules.versions_in_use(deployment) - deployment.uses):
            await self._note_use(lease, version, recorded=False)
            try:
                await self._start_use(deployment, version)
            except ServiceError as error:
                failure = _refusal(error)
                if failure is None:
                    raise
                await self._database.write(lambda tx: _fail(tx, lease, version, failure))  # noqa: B023
                return
            await self._note_use(lease, version, recorded=True)

    async def _start_use(self, deployment: Deployment, version: str) -> None:
        name, revision = deployment.name, _wisher(deployment, version)
        credential = await self._delegations.renewed(name, revision)
        await self._metadata.start_use(version, name, credential=credential)

    async def _end_uses(self, lease: Lease) -> None:
        """Have metadata know what runs no more."""
        deployment, uses = await self._database.read(lambda tx: _with_uses(tx, lease.name))
        ended = sorted(uses.keys() - rules.versions_in_use(deployment))
        if not ended:
            return
        revision = deployment.desired_revision
        credential = await self._delegations.renewed(lease.name, revision)
        for version in ended:
            try:
                await self._metadata.end_use(version, lease.name, credential=credential)
            except ServiceError as error:
                if error.reason is not Reason.RESOURCE_NOT_FOUND:  # it never began
                    raise
            await self._database.write(lambda tx: _forget_use(tx, lease, version))  # noqa: B023

    async def _note_use(self, lease: Lease, version: str, *, recorded: bool) -> None:
        def note(tx: Transaction) -> None:
            _locked(tx, lease)
            crossings.note_use(tx.connection, lease.name, version, recorded=recorded)

        await self._database.write(note)


def _locked(tx: Transaction, lease: Lease) -> Deployment:
    """Lock a deployment for a change, refused when another replica drives it by now."""
    deployment = store.find_deployment(tx.connection, lease.name, lock=True)
    if deployment is None or crossings.lease_epoch(tx.connection, lease.name) != lease.epoch:
        raise ServiceError(Reason.LEASE_LOST, f"{lease.name} is driven by another replica")
    return deployment


def _settle(tx: Transaction, lease: Lease) -> None:
    """Write down that nothing is left to do, unless there is by now; give the lease back."""
    deployment = _locked(tx, lease)
    if rules.is_settled(deployment):
        store.save_deployment(tx.connection, deployment, deployment, settled=True)
        crossings.expire_lease(tx.connection, lease.name, lease.epoch)


def _wisher(deployment: Deployment, version: str) -> int:
    """Return the newest revision that wants a version: its actor answers for its use."""
    wanting = [r.number for r in deployment.revisions if r.version == version]
    return max(wanting, default=deployment.desired_revision)


def _fail(tx: Transaction, lease: Lease, version: str, failure: Failure) -> None:
    """Give up what wants a version that metadata refuses: the wish, what runs beside, or both."""
    deployment, now = _locked(tx, lease), datetime.now(UTC)
    for revision in deployment.beside.values():
        if revision.version == version:
            step = beside.end(deployment, revision, now, failure=failure)
            deployment = journal.record(tx, deployment, step)
    desired = deployment.desired
    if desired.version == version and desired.outcome is RevisionOutcome.IN_PROGRESS:
        journal.record(tx, deployment, rules.fail(deployment, failure, now=now))


def _forget_use(tx: Transaction, lease: Lease, version: str) -> None:
    _locked(tx, lease)
    crossings.forget_use(tx.connection, lease.name, version)


def _with_uses(tx: Transaction, name: DeploymentName) -> tuple[Deployment, dict[str, bool]]:
    deployment = store.find_deployment(tx.connection, name)
    if deployment is None:
        raise ServiceError(Reason.RESOURCE_NOT_FOUND, f"{name} does not exist")
    return deployment, crossings.list_uses(tx.connection, name)


def _refusal(error: ServiceError) -> Failure | None:
    """Say how a wish fails by what metadata answered; None when asking again may help."""
    if error.reason in LOST:
        message = "whoever wished it may not deploy or read here any more"
        return Failure("RIGHT_LOST", message)
    if error.reason in (Reason.RESOURCE_NOT_FOUND, Reason.WRONG_STATE):
        return Failure("FETCH_FAILED", error.message)
    return None
