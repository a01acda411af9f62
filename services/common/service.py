"""How a service is put together and run, alone in its process or with others.

Each service's `__main__.py` composes its parts into a `Service`; `run` gives one
or several of them one server, one authenticator and one life.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from services.common import logs
from services.common.audit.trail import Trail
from services.common.auth import Authenticator, CachingAuthenticator
from services.common.events import EventBus
from services.common.processes.disk_failure import stop_serving_after
from services.common.processes.leaving import LEAVE_SECONDS, leave_within, on_stop
from services.common.processes.memory import keep_freed_memory
from services.common.rpc.callers import Callers
from services.common.rpc.interceptors import Chain
from services.common.rpc.peers import Peer, RemoteAuthenticator
from services.common.rpc.revocation import Revocations
from services.common.rpc.server import Register, Server, ServerSettings
from services.common.safe_start import check_redis
from services.common.settings import SettingsError, exiting_when_bad, load_or_exit
from services.common.sql.database import Database
from services.common.telemetry import Telemetry, configure

logger = logging.getLogger(__name__)

Background = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SuiteSettings:
    """What every process of the suite needs to know; read from `MODELYARD_*`."""

    suite_address: str = "127.0.0.1:7070"
    """Where the suite's services are reached: the proxy, or the embedded port."""
    root_certificates: str = ""
    """A PEM file with the authority of the suite's certificates; empty: plaintext."""
    peer_certificate: str = ""
    """A PEM file with the certificate that this process shows to the suite's others."""
    peer_key: str = ""
    """A PEM file with its key."""
    redis_url: str = ""
    """Such as `redis://host:6379/0` or `unix:///run/valkey.sock`; empty: followers poll."""
    otlp_endpoint: str = ""
    """An OTLP/gRPC collector, `http://host:4317`; empty: no traces leave the process."""
    trace_ratio: float = 1.0
    """Which share of traces is kept when the caller did not decide."""
    metrics_port: int = 0
    """A loopback port for Prometheus; 0: none."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""


def connect(suite: SuiteSettings) -> Peer:
    """Make this process's way to the suite's services.

    Raises:
        SettingsError: a certificate cannot be used, or there must be one.
    """
    return Peer(
        suite.suite_address,
        root_certificates=suite.root_certificates,
        certificate=suite.peer_certificate,
        key=suite.peer_key,
    )


@dataclass(frozen=True, slots=True)
class Chassis:
    """What a service is given to build on."""

    settings: SuiteSettings
    peer: Peer

    def database(self, url: str, service: str, migrations: Path) -> tuple[Database, EventBus]:
        """Open a service's database and the bus that carries its events."""
        check_redis(self.settings.redis_url)
        database = Database.open(url, migrations=migrations)
        bus = EventBus(self.settings.redis_url or None, service=service)
        database.on_commit(bus.publish)
        return database, bus


@dataclass(frozen=True, slots=True)
class Service:
    """A composed service."""

    name: str
    servicers: Sequence[tuple[Register, object]]
    background: Sequence[Background] = ()
    """Run from the server's start until its stop; one that fails ends the process."""
    doors: Sequence[Background] = ()
    """Servers beside gRPC's, run likewise: they close, by and by, when that takes no more calls."""
    close: Sequence[Callable[[], None]] = ()
    authenticator: Authenticator | None = field(default=None)
    """Set by the one service that owns credentials."""
    trail: Trail | None = None
    """Where its calls are recorded."""


Compose = Callable[[Chassis], Awaitable[Service]]


def run_process(name: str, composes: Sequence[Compose], prefix: str) -> None:
    """Be a service's process, or that of several, until SIGTERM or SIGINT.

    Args:
        name: what it is called in traces.
        composes: put its services together.
        prefix: of the variables that say how it listens, such as `MODELYARD_METADATA_`.
    """
    server = load_or_exit(ServerSettings, prefix)
    suite = load_or_exit(SuiteSettings, "MODELYARD_")
    uvloop.run(run(name, composes, server, suite))


async def run(
    name: str,
    composes: Sequence[Compose],
    server_settings: ServerSettings,
    suite: SuiteSettings,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    # Whatever a service writes is for its own account's eyes only.
    os.umask(0o077)
    keep_freed_memory()
    logs.configure(suite.log_level)
    telemetry = configure(
        f"modelyard-{name}",
        otlp_endpoint=suite.otlp_endpoint or None,
        sample_ratio=suite.trace_ratio,
    )
    telemetry.serve_metrics(suite.metrics_port)
    with exiting_when_bad():
        peer = connect(suite)
        services = [await compose(Chassis(suite, peer)) for compose in composes]
    _spare_collector()
    try:
        await _serve(services, server_settings, _authenticator(services, peer), telemetry)
    except BaseException:
        leave_within(LEAVE_SECONDS, status=1)
        raise
    finally:
        for service in reversed(services):
            for close in service.close:
                close()
        await peer.close()
        telemetry.close()


def _spare_collector() -> None:
    """Keep the garbage collector from looking through code and descriptors again and again.

    A full look takes a tenth of a second, in the middle of whatever call comes first.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _serve(
    services: Sequence[Service],
    settings: ServerSettings,
    authenticator: Authenticator,
    telemetry: Telemetry,
) -> None:
    caching = CachingAuthenticator(authenticator)
    with exiting_when_bad():
        callers = _callers(settings)
    chain = Chain(caching, telemetry, callers=callers, known=caching.known)
    server = Server(settings, chain)
    for service in services:
        turns = server.turns()
        for register, servicer in service.servicers:
            server.add(register, servicer, service.trail, turns)
    with exiting_when_bad():
        port = await server.start()
    logger.info("serving", extra={"port": port, "services": [s.name for s in services]})
    async with asyncio.TaskGroup() as tasks:
        running = _begin(tasks, [one for service in services for one in service.background])
        doors = _begin(tasks, [one for service in services for one in service.doors])
        running.append(tasks.create_task(stop_serving_after(server.set_serving)))
        stop = asyncio.Event()
        on_stop(
            stop.set, within=settings.lame_duck_seconds + settings.grace_seconds + LEAVE_SECONDS
        )
        await stop.wait()
        logger.info("draining")
        await server.stop(doors)
        leave_within(LEAVE_SECONDS)
        for task in running:
            task.cancel()


def _callers(settings: ServerSettings) -> Callers | None:
    authority, lists = settings.peer_authority, settings.peer_revocations
    if lists and not authority:
        raise SettingsError("the peers' revocations need the peers' authority")
    if not authority:
        return None
    return Callers(Revocations(lists, authority) if lists else None)


def _begin(tasks: asyncio.TaskGroup, backgrounds: Sequence[Background]) -> list[asyncio.Task[None]]:
    return [tasks.create_task(_run_forever(background())) for background in backgrounds]


async def _run_forever(background: Awaitable[None]) -> None:
    await background


def _authenticator(services: Sequence[Service], peer: Peer) -> Authenticator:
    own = [service.authenticator for service in services if service.authenticator is not None]
    return own[0] if own else RemoteAuthenticator(peer)
