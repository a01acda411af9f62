"""Channels to a Modelyard server, and the metadata that every call carries.

Retries are gRPC's own: UNAVAILABLE, and RESOURCE_EXHAUSTED when the server says so: it names the
time to wait, or that waiting is no help. Only what is safe to repeat is: a method that is not is
named in `_NEVER_RETRIED`. Each channel's failures are counted, so that many of them end its
retries: a server with too much to do is not asked for more.
"""

from __future__ import annotations

import json
import logging
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio

from modelyard._transport.config import ConnectionSettings, is_local, trust
from modelyard._transport.file_changes import FileChanges

DEFAULT_TIMEOUT = 10.0
"""Seconds that a unary call may take unless told otherwise."""

STREAM_TIMEOUT = 6 * 3600.0
"""Seconds that one stream may last; whoever follows one opens the next."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024 + 64 * 1024
"""The server's limit for a message, and some slack for what frames it."""

ChannelT = TypeVar("ChannelT")
StubT = TypeVar("StubT")
_log = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str], ...]

_NEVER_RETRIED = (
    # A second one would find nothing and say so: it takes no request id.
    ("modelyard.metadata.v1.ModelService", "DeleteAlias"),
    # Streams: whoever reads or sends one begins it again by himself. gRPC's own retry of a stream
    # whose server was killed before it said anything may hang for hours.
    ("modelyard.metadata.v1.ModelService", "WatchModels"),
    ("modelyard.metadata.v1.RunService", "WatchRuns"),
    ("modelyard.metadata.v1.RunService", "IngestRunData"),
    ("modelyard.artifact.v1.ArtifactService", "WriteChunks"),
    ("modelyard.artifact.v1.ArtifactService", "CommitFile"),
    ("modelyard.artifact.v1.ArtifactService", "ReadFile"),
    ("modelyard.artifact.v1.ArtifactService", "ReadFiles"),
    ("modelyard.artifact.v1.ArtifactService", "ReadRecipe"),
    ("modelyard.artifact.v1.StorageService", "VerifyArtifact"),
    ("modelyard.builder.v1.BuildService", "StreamBuildEvents"),
    ("modelyard.builder.v1.WorkerService", "ReportEvents"),
    ("modelyard.deployer.v1.DeploymentService", "StreamDeploymentEvents"),
    ("modelyard.deployer.v1.ControllerService", "WatchAssignments"),
)

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        },
        {"name": [{"service": service, "method": method} for service, method in _NEVER_RETRIED]},
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}


class Line(Generic[ChannelT]):
    """A connection's channel, opened anew when the file with the authorities it trusts changes.

    Threads may share it. Calls that are under way go on: the channel that they use is let go of
    when the last of them ends. Each holds its channel until then, so that `close` knows of it.
    """

    def __init__(
        self, settings: ConnectionSettings, open_one: Callable[[ConnectionSettings], ChannelT]
    ) -> None:
        self._settings = settings
        self._open = open_one
        file = settings.certificates_file
        self._changes = FileChanges([file] if file is not None and settings.secure else [])
        self._lock = threading.RLock()
        self._channel = open_one(settings)
        self._earlier: WeakSet[ChannelT] = WeakSet()
        self._stubs: dict[object, Any] = {}
        self._is_closed = False

    @property
    def channel(self) -> ChannelT:
        """Return the channel for the next call."""
        with self._lock:
            if not self._is_closed and self._changes.found():
                self._renew()
            return self._channel

    def close(self) -> list[Any]:
        """End all calls, and open no other channel; return what asyncio has to await of that."""
        with self._lock:
            self._is_closed = True
            channels: list[Any] = [*self._earlier, self._channel]
        return [channel.close() for channel in channels]

    @property
    def authorities(self) -> bytes | None:
        """Return whom the channel trusts, in PEM; None: those whom the system does."""
        return self._settings.root_certificates

    def stub(self, make: Callable[[ChannelT], StubT]) -> StubT:
        """Return a generated stub for the next call."""
        with self._lock:
            channel = self.channel  # which may let go of the stubs
            if make not in self._stubs:
                self._stubs[make] = make(channel)
            found: StubT = self._stubs[make]
            return found

    def _renew(self) -> None:
        """Trust whom the file says by now; one that cannot be used, or not yet, changes nothing."""
        assert self._settings.certificates_file is not None  # noqa: S101 - it has changed
        try:
            text = self._settings.certificates_file.read_bytes()
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), text)
        except (OSError, ValueError) as problem:  # of TLS, too
            _log.warning("%s: not read anew: %s", self._settings.certificates_file, problem)
            return
        self._settings = replace(self._settings, root_certificates=text)
        self._earlier.add(self._channel)
        self._channel = self._open(self._settings)
        self._stubs = {}


def open_channel(settings: ConnectionSettings) -> grpc.Channel:
    """Return a channel for blocking calls; it connects at the first one."""
    options = _options(settings)
    if settings.secure:
        return grpc.secure_channel(settings.target, _credentials(settings), options)
    return grpc.insecure_channel(settings.target, options)


def open_async_channel(settings: ConnectionSettings) -> grpc.aio.Channel:
    """Return a channel for asyncio; it connects at the first call."""
    options = _options(settings)
    if settings.secure:
        return grpc.aio.secure_channel(settings.target, _credentials(settings), options)
    return grpc.aio.insecure_channel(settings.target, options)


def call_metadata(settings: ConnectionSettings) -> Metadata:
    """Return what goes with every call: the credential and the present trace."""
    metadata = _trace_context()
    if settings.token:
        metadata["authorization"] = f"Bearer {settings.token}"
    return tuple(metadata.items())


def _options(settings: ConnectionSettings) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if is_local(settings.target):
        # A proxy named in the environment cannot reach this machine's own loopback.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def _credentials(settings: ConnectionSettings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(root_certificates=settings.root_certificates)


def _trace_context() -> dict[str, str]:
    # OpenTelemetry is no dependency: a program that traces has loaded it itself.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    carrier: dict[str, str] = {}
    import_module("opentelemetry.propagate").inject(carrier)
    return carrier
