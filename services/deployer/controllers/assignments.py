"""The controllers' side: what should be live, what became of it, and how to fetch it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.common import events
from services.common.errors import (
    Reason,
    ServiceError,
    invalid_field,
    not_found,
    wrong_state,
)
from services.common.events import EventBus
from services.common.listing.pagination import cursor_expired
from services.common.names import ArtifactName, DeploymentName, EnvironmentName
from services.common.sql import outbox
from services.common.sql.database import Database, Transaction
from services.deployer.controllers.delegations import Delegations
from services.deployer.domain import Assignment, Deployment, Report, TargetKind
from services.deployer.metadata import Grant
from services.deployer.rollouts import journal, rules
from services.deployer.store import controllers
from services.deployer.store import deployments as store
from services.deployer.store.environments import find_environment, set_address

PAGE = 100
LEASE_SECONDS = 45.0
"""Three times what a quiet stream waits at most before it shows that it lives."""

Assigned = list[tuple[DeploymentName, Assignment]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some assignments, the newest of each deployment, and where the stream stands."""

    assigned: Assigned
    sequence: int
    complete: bool = False


class Assignments:
    """What inference controllers ask and say."""

    def __init__(self, database: Database, bus: EventBus, delegations: Delegations) -> None:
        self._database = database
        self._bus = bus
        self._delegations = delegations

    async def watch(
        self, environment: EnvironmentName, after: int | None, *, controller: str
    ) -> AsyncIterator[Batch]:
        """Yield what is assigned, or changed after a sequence; then each change, for ever.

        Raises:
            ServiceError: LEASE_LOST when another controller holds the lease; CURSOR_EXPIRED when
                changes after the sequence are no longer kept.
        """
        first = await self._database.read(lambda tx: _first(tx, environment, after))
        await self._database.write(lambda tx: _take_lease(tx, environment, controller))
        assigned, sequence = first.assigned, first.sequence
        for start in range(0, len(assigned) - PAGE, PAGE):
            # A reader that stops here begins again: the sequence is not yet its cursor.
            yield Batch(assigned[start : start + PAGE], after or 0)
        yield Batch(assigned[(len(assigned) - 1) // PAGE * PAGE :], sequence, complete=True)
        changes = events.tail(self._database, self._bus, journal.ASSIGNMENTS, sequence)
        async for changed in changes:
            sequence = changed[-1].sequence if changed else sequence
            await self._database.write(lambda tx: _take_lease(tx, environment, controller))
            names = _names(changed, environment)
            yield Batch(await self._present(environment, names), sequence)

    async def report(
        self, name: DeploymentName, report: Report, *, address: str, controller: str
    ) -> None:
        """Take a controller's report; refuse with LEASE_LOST that of another than the holder."""
        await self._database.write(lambda tx: _report(tx, name, report, address, controller))

    async def grant(self, name: DeploymentName, artifact: ArtifactName) -> Grant:
        """Return a credential that reads an assigned artifact for whoever deployed it."""
        deployment = await self._database.read(
            lambda tx: store.find_deployment(tx.connection, name)
        )
        if deployment is None:
            raise not_found(name)
        revision = _assigned_revision(deployment, artifact)
        return await self._delegations.reading(name, revision)

    async def _present(self, environment: EnvironmentName, names: set[str]) -> Assigned:
        if not names:
            return []
        return await self._database.read(
            lambda tx: _ours(tx, environment, store.find_assignments(tx.connection, names))
        )


def _first(tx: Transaction, environment: EnvironmentName, after: int | None) -> Batch:
    """Read what a stream begins with; the sequence is read first, so nothing is missed."""
    exact = "-" not in (environment.project, environment.environment)
    if exact and find_environment(tx.connection, environment) is None:
        raise not_found(environment)
    sequence = outbox.last_sequence(tx.connection, journal.ASSIGNMENTS)
    if after is None:
        everything = store.list_assigned(tx.connection, environment)
        return Batch(_ours(tx, environment, everything), sequence)
    names: set[str] = set()
    while after < sequence:
        page = outbox.read_events(tx.connection, journal.ASSIGNMENTS, after, PAGE)
        if not page:
            break
        if page[0].sequence != after + 1:
            raise cursor_expired()
        names |= _names(page, environment)
        after = page[-1].sequence
    found = store.find_assignments(tx.connection, names) if names else []
    return Batch(_ours(tx, environment, found), max(sequence, after))


def _ours(tx: Transaction, environment: EnvironmentName, assigned: Assigned) -> Assigned:
    """Leave EXTERNAL environments out of a watch of many: their controllers name them."""
    if "-" not in (environment.project, environment.environment):
        return assigned
    return store.without_external(tx.connection, assigned)


def _take_lease(tx: Transaction, environment: EnvironmentName, controller: str) -> None:
    """Take or extend the lease of what is watched, unless another has a part of it."""
    now = datetime.now(UTC)
    controllers.lock_leases(tx.connection, now)
    for scope, holder in controllers.others(tx.connection, environment, controller, now).items():
        raise _held_by(holder, scope)
    expire_time = now + timedelta(seconds=LEASE_SECONDS)
    controllers.take_lease(tx.connection, environment, controller, expire_time)


def _held_by(holder: str, environment: EnvironmentName) -> ServiceError:
    message = f"controller {holder} carries out what is deployed in {environment}"
    return ServiceError(Reason.LEASE_LOST, message, resource=str(environment))


def check_holder(
    tx: Transaction, environment: EnvironmentName, controller: str, now: datetime
) -> None:
    """Refuse a controller with LEASE_LOST while another holds the environment's lease."""
    found = find_environment(tx.connection, environment)
    external = found is not None and found.target is TargetKind.EXTERNAL
    holder = controllers.lease_holder(tx.connection, environment, now, external=external)
    if holder not in ("", controller):
        raise _held_by(holder, environment)


def _names(changed: Iterable[outbox.Event], environment: EnvironmentName) -> set[str]:
    """Name the deployments of an environment that changed; `-` stands for all."""
    names = [DeploymentName.parse(event.payload.decode()) for event in changed]
    return {
        str(name)
        for name in names
        if environment.project in ("-", name.project)
        and environment.environment in ("-", name.environment)
    }


def _report(
    tx: Transaction, name: DeploymentName, report: Report, address: str, controller: str
) -> None:
    check_holder(tx, name.parent, controller, datetime.now(UTC))
    deployment = store.find_deployment(tx.connection, name, lock=True)
    if deployment is None:
        raise not_found(name)
    if report.generation > deployment.assignment.generation:
        raise invalid_field("status.generation", "was never assigned")
    if address:
        set_address(tx.connection, name.parent, address)
    step = rules.receive(deployment, report)
    if step is not None:
        journal.record(tx, deployment, step)


def _assigned_revision(deployment: Deployment, artifact: ArtifactName) -> int:
    for variant in reversed(deployment.assignment.variants):
        if variant.artifact == str(artifact):
            return variant.revision
    message = f"{artifact} is not assigned in {deployment.name}"
    raise wrong_state(deployment.name, deployment.state.value, message)
