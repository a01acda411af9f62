"""The one server every service runs on: health, limits, drain, the interceptors.

A stop is graceful in five steps, because grpcio's own is not: health says
NOT_SERVING, balancers get a moment to look elsewhere (the lame duck), streams
without end are sent there, calls in progress get their grace, and only then is
the rest cut off. Other servers of the process close together with this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.common.audit.trail import Trail
from services.common.rpc.certificates import ServerCertificate
from services.common.rpc.draining import Drain
from services.common.rpc.interceptors import Chain
from services.common.rpc.limiting import Limiter
from services.common.rpc.methods import methods_of
from services.common.rpc.pipeline import wrapped
from services.common.rpc.refusing import Door
from services.common.rpc.turns import Turns
from services.common.safe_start import is_loopback
from services.common.settings import SettingsError

Register = Callable[[Any, Any], None]

MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024
MAX_CONCURRENT_CALLS = 2_000

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # A second server on the port must fail, not take every other connection.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The proxy asks every four seconds whether anybody is there, also where no data goes.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How a server listens; read from `MODELYARD_<SERVICE>_*`."""

    listen: str = "127.0.0.1:7070"
    """`host:port`; port 0 takes a free one."""
    tls_certificate: str = ""
    """A PEM file; required off loopback."""
    tls_key: str = ""
    """A PEM file; required off loopback."""
    peer_authority: str = ""
    """A PEM file of the authority of the suite's own certificates. With it, whoever connects
    must show one: the suite's processes and the proxy, through which all others come."""
    peer_revocations: str = ""
    """A PEM file of that authority's list (CRL) of revoked certificates; of several one after
    the other. Empty: none is looked at."""
    reflection: bool = False
    """Serve reflection: for the embedded profile and development."""
    lame_duck_seconds: float = 1.0
    """How long to answer, NOT_SERVING, before calls are refused."""
    grace_seconds: float = 10.0
    """How long calls in progress may go on after that."""
    calls_per_second: float = 5_000.0
    """How many calls a principal may begin, in the long run; 0: any number."""
    burst: int = 10_000
    """How many at once, after a rest."""
    streams_of_a_principal: int = 1_000
    """How many streams, uploads among them, a principal may have open; 0: any number."""
    awaited_requests_of_a_principal: int = 750
    """How many unary calls whose request is not there yet a principal may have; 0: any number."""
    message_seconds: float = 60.0
    """How long a message of an upload may take to come; 0: any time."""
    calls_at_once: int = 32
    """How many unary calls each service works on at once; 0: any number."""
    calls_waiting: int = 512
    """How many may wait for that at most; principals take turns."""


class Server:
    """A gRPC server with everything a service needs around its servicers."""

    def __init__(self, settings: ServerSettings, chain: Chain) -> None:
        self._settings = settings
        limiter = Limiter(
            calls_per_second=settings.calls_per_second,
            burst=settings.burst,
            streams=settings.streams_of_a_principal,
            requests=settings.awaited_requests_of_a_principal,
        )
        self._drain = Drain()
        self._chain = replace(
            chain,
            limiter=limiter,
            drain=self._drain,
            message_seconds=settings.message_seconds or None,
        )
        self._names: list[str] = []
        self._handlers = _Handlers()
        self._server = grpc.aio.server(
            handlers=[self._handlers],
            options=OPTIONS,
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        self._health = _Health(self._drain)
        register: Register = health_pb2_grpc.add_HealthServicer_to_server
        register(self._health, self._handlers)

    def turns(self) -> Turns:
        """Make the turns that the calls of one service take."""
        return Turns(self._settings.calls_at_once, self._settings.calls_waiting)

    def add(
        self,
        register: Register,
        servicer: object,
        trail: Trail | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Serve a servicer; refused when one of its RPCs declares no right.

        Args:
            register: the generated function that registers it.
            servicer: the servicer.
            trail: where its calls are recorded, that of its service.
            turns: what its calls take, those of its service; None: turns of its own.
        """
        own = _Handlers()
        chain = replace(self._chain, trail=trail, turns=turns or self.turns())
        register(servicer, own)
        methods = methods_of(descriptor_pool.Default().FindServiceByName(own.service_name))
        self._names.append(own.service_name)
        for path, handler in own.by_path.items():
            self._handlers.doors[path] = wrapped(handler, methods[path], chain)

    async def start(self) -> int:
        """Listen and answer; return the port."""
        if self._settings.reflection:
            self._add_reflection()
        port = self._listen()
        await self._server.start()
        await self.set_serving(serving=True)
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """Say by health whether the services should be called."""
        answer = health_pb2.HealthCheckResponse
        state = answer.SERVING if serving else answer.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def stop(self, others: Sequence[asyncio.Task[None]] = ()) -> None:
        """Drain: NOT_SERVING, lame duck, an end of followers, grace, close.

        Args:
            others: what takes requests, too: cancelled when no more calls are, and awaited.
        """
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.lame_duck_seconds)
        self._drain.begin()
        for other in others:
            other.cancel()
        await self._server.stop(self._settings.grace_seconds)
        await asyncio.gather(*others, return_exceptions=True)

    def _listen(self) -> int:
        credentials, address = _credentials(self._settings), self._settings.listen
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    def _add_reflection(self) -> None:
        # Not in production.
        from grpc_reflection.v1alpha import (  # noqa: PLC0415
            reflection,
            reflection_pb2_grpc,
        )

        names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        register: Register = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        register(reflection.aio.ReflectionServicer(names), self._handlers)


def _credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Return what a server proves itself with; None: in plaintext, on loopback only.

    Raises:
        SettingsError: what is set is not safe.
    """
    if settings.reflection and not is_loopback(settings.listen):
        raise SettingsError(f"{settings.listen} is a public address: no reflection there")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise SettingsError("a TLS certificate and its key go together")
    if not settings.tls_certificate:
        if settings.peer_authority:
            raise SettingsError("the peers' authority needs a TLS certificate of the server's own")
        if not is_loopback(settings.listen):
            raise SettingsError(
                f"{settings.listen} is a public address: it needs a TLS certificate"
            )
        return None
    own = ServerCertificate(settings.tls_certificate, settings.tls_key, settings.peer_authority)
    return grpc.dynamic_ssl_server_credentials(
        own.read(),
        own.changed,  # type: ignore[arg-type]  # None means unchanged, which the types forget
        require_client_authentication=bool(settings.peer_authority),
    )


class _Health(health.aio.HealthServicer):
    """The health protocol, whose watches are no calls that a stop waits for."""

    def __init__(self, drain: Drain) -> None:
        super().__init__()
        self._drain = drain

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> None:
        """Tell what the health is, until the server stops."""
        await self._drain.until(super().Watch(request, context))


class _Handlers(grpc.GenericRpcHandler):
    """Methods' handlers by path, as a generated `add_…_to_server` registers them.

    They are not registered with grpcio itself: it waits on every registered method at each
    call, so a call would cost the more the more methods there are.
    """

    def __init__(self) -> None:
        self.by_path: dict[str, Any] = {}
        self.doors: dict[str, Door] = {}
        """Those that do not let in whoever comes."""
        self.service_name = ""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; None when there is no such method."""
        door = self.doors.get(handler_call_details.method)
        if door is None:
            return self.by_path.get(handler_call_details.method)
        return door.open(handler_call_details.invocation_metadata or ())

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Do nothing: the same handlers come method by method."""

    def add_registered_method_handlers(self, name: str, handlers: Mapping[str, Any]) -> None:
        """Take a service's handlers."""
        self.service_name = name
        self.by_path |= {f"/{name}/{method}": handler for method, handler in handlers.items()}
