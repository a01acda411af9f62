"""How the parts of automations are put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from modelyard.builder.v1 import automation_service_pb2_grpc

from services.builder.automations.catalogue import Catalogue
from services.builder.automations.delegating import AutomationDelegations
from services.builder.automations.downstream import Neighbours
from services.builder.automations.executing import Executing
from services.builder.automations.firing import Firing
from services.builder.automations.observing import Observing
from services.builder.automations.servicer import AutomationServicer
from services.builder.downstream import Downstream
from services.builder.orders import Orders
from services.builder.settings import BuilderSettings
from services.common.rpc.server import Register
from services.common.sql.database import Database

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Parts:
    """What automations are made from."""

    database: Database
    downstream: Downstream
    orders: Orders
    neighbours: Neighbours


@dataclass(frozen=True, slots=True)
class Automations:
    """What the composition root needs of automations."""

    served: tuple[Register, AutomationServicer]
    chores: list[Callable[[], Awaitable[None]]]


def automations(
    settings: BuilderSettings, parts: Parts, *, clock: Clock, calendar: Clock
) -> Automations:
    """Put automations together; `calendar` is the clock that triggers of time go by."""
    database, downstream, neighbours = parts.database, parts.downstream, parts.neighbours
    delegations = AutomationDelegations(database=database, downstream=downstream, clock=clock)
    catalogue = Catalogue(
        database=database, downstream=downstream, neighbours=neighbours, clock=calendar
    )
    observing = Observing(
        database=database,
        neighbours=neighbours,
        delegations=delegations,
        clock=clock,
        poll_seconds=settings.watch_seconds,
    )
    executing = Executing(
        database=database,
        orders=parts.orders,
        neighbours=neighbours,
        delegations=delegations,
        clock=clock,
        poll_seconds=2 * settings.tick_seconds,
    )
    firing = Firing(database=database, clock=calendar)
    servicer = AutomationServicer(catalogue=catalogue, observing=observing, clock=clock)
    return Automations(
        (automation_service_pb2_grpc.add_AutomationServiceServicer_to_server, servicer),
        [firing.fire_due, observing.look, executing.drive, delegations.renew_due],
    )
