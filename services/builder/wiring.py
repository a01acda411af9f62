"""How the parts of the builder are put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from modelyard.builder.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    build_service_pb2_grpc,
    queue_service_pb2_grpc,
    secret_service_pb2_grpc,
    worker_service_pb2_grpc,
)

from services.builder.automations.downstream import Neighbours
from services.builder.automations.wiring import Parts, automations
from services.builder.chores import repeat
from services.builder.delegations import Delegations
from services.builder.downstream import Downstream
from services.builder.ledger import Ledger
from services.builder.orders import Orders
from services.builder.provisions import Provisions
from services.builder.queue.domain import Defaults
from services.builder.queue.queueing import Queue
from services.builder.queue.servicer import QueueServicer
from services.builder.registrar import Registrar
from services.builder.runs import RunFinisher
from services.builder.scheduler import Scheduler
from services.builder.secrets.keeping import open_vault
from services.builder.secrets.servicer import SecretServicer
from services.builder.servicer import BuildServicer
from services.builder.settings import PREFIX, BuilderSettings
from services.builder.trimming import Trimming
from services.builder.worker_servicer import WorkerServicer
from services.common.audit.servicer import AuditServicer
from services.common.audit.trail import Trail
from services.common.own_token import OwnToken
from services.common.service import Background, Chassis, Service
from services.common.settings import load_or_exit
from services.common.sql.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
UPKEEP_SECONDS = 600.0


async def compose(
    chassis: Chassis,
    settings: BuilderSettings | None = None,
    *,
    calendar: Callable[[], datetime] | None = None,
) -> Service:
    """Put the service together; `calendar` is the clock of triggers, the real one by default."""
    settings = settings or load_or_exit(BuilderSettings, PREFIX)
    token = OwnToken(settings.token_file)
    database, bus = chassis.database(settings.database_url, "builder", MIGRATIONS)
    trail = Trail(database=database, service="builder")
    downstream = Downstream(chassis.peer, own_token=token.read, clock=now)
    delegations = Delegations(database=database, downstream=downstream, clock=now)
    ledger = Ledger(database=database, bus=bus)
    vault = await open_vault(settings.secret_key_file, database=database, clock=now)
    limits = Defaults(settings.project_limit, settings.model_limit)
    queue = Queue(database=database, defaults=limits, clock=now)
    orders = Orders(database=database, downstream=downstream, vault=vault, queue=queue, clock=now)
    provisions = Provisions(
        database=database, downstream=downstream, delegations=delegations, vault=vault
    )
    registrar = Registrar(
        database=database, downstream=downstream, delegations=delegations, clock=now
    )
    runs = RunFinisher(database=database, downstream=downstream, delegations=delegations)
    scheduler = Scheduler(
        database=database,
        bus=bus,
        downstream=downstream,
        delegations=delegations,
        queue=queue,
        clock=now,
        lease_seconds=settings.lease_seconds,
        retry_delay=timedelta(seconds=settings.retry_seconds),
    )
    parts = Parts(database, downstream, orders, Neighbours(chassis.peer))
    automated = automations(settings, parts, clock=now, calendar=calendar or now)
    chores = [scheduler.expire, delegations.renew_due, registrar.resume, runs.finish_due]
    ticking = _ticking(chores + automated.chores, settings.tick_seconds)
    workers = WorkerServicer(
        scheduler=scheduler, ledger=ledger, registrar=registrar, provisions=provisions
    )
    builds, secrets = BuildServicer(orders=orders, ledger=ledger), SecretServicer(vault=vault)
    return Service(
        name="builder",
        servicers=[
            (
                audit_service_pb2_grpc.add_AuditServiceServicer_to_server,
                AuditServicer(trail, audit_service_pb2),
            ),
            (build_service_pb2_grpc.add_BuildServiceServicer_to_server, builds),
            (worker_service_pb2_grpc.add_WorkerServiceServicer_to_server, workers),
            (secret_service_pb2_grpc.add_SecretServiceServicer_to_server, secrets),
            (queue_service_pb2_grpc.add_QueueServiceServicer_to_server, QueueServicer(queue=queue)),
            automated.served,
        ],
        background=[bus.run, trail.run, *ticking, *_upkeep(queue, database, settings)],
        trail=trail,
        close=[database.close],
    )


def _upkeep(queue: Queue, database: Database, settings: BuilderSettings) -> list[Background]:
    """Forget what is no longer needed."""
    age = timedelta(days=settings.event_days) if settings.event_days else None
    trimming = Trimming(database=database, clock=now, age=age)
    return _ticking([queue.forget_lost, trimming.trim], UPKEEP_SECONDS)


def _ticking(chores: Sequence[Callable[[], Awaitable[None]]], seconds: float) -> list[Background]:
    """Repeat each chore on its own, so that none waits for another's slow peer."""
    return [lambda chore=chore: repeat(chore, seconds) for chore in chores]  # type: ignore[misc]


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)
