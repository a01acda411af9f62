"""Calls to the suite's other services, with the user's own credential."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from modelyard._transport.file_changes import FileChanges
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import project_service_pb2, project_service_pb2_grpc

from services.common import telemetry
from services.common.auth import CREDENTIAL, Identity, Right, current_call
from services.common.rpc import status
from services.common.rpc.certificates import read_certificates, read_pair
from services.common.safe_start import is_loopback
from services.common.settings import SettingsError

Stub = TypeVar("Stub")
logger = logging.getLogger(__name__)

DEFAULT_SECONDS = 10.0
MARGIN_SECONDS = 0.05

OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    # A service that comes back is found within seconds, not after grpcio's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class Peer:
    """The suite's one address, as seen by a service of the suite."""

    def __init__(
        self, target: str, *, root_certificates: str = "", certificate: str = "", key: str = ""
    ) -> None:
        """Read the certificates; the connection is made with the first call.

        Args:
            target: `host:port`, or `unix:path`.
            root_certificates: a PEM file of the authority to trust; empty: plaintext.
            certificate: a PEM file with the certificate of this process, if it has one.
            key: a PEM file with its key.

        Raises:
            SettingsError: a file cannot be read, or plaintext would leave this machine.
        """
        self._target = target
        self._files = (root_certificates, certificate, key)
        self._credentials = _credentials(target, *self._files)
        self._changes = FileChanges(filter(None, self._files))
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[Any, Any] = {}

    def stub(self, make: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """Make a generated stub on the peer's channel, to be used at once."""
        if self._changes.found():
            self._renew()
        if self._channel is None:
            self._channel = self._connect()
        # Making a stub costs as much as a call.
        if make not in self._stubs:
            self._stubs[make] = make(self._channel)
        found: Stub = self._stubs[make]
        return found

    async def call(
        self, method: Any, request: Any, *, credential: str, seconds: float = DEFAULT_SECONDS
    ) -> Any:
        """Call a stub's unary method; what it refuses is raised as the same ServiceError."""
        metadata = telemetry.inject([(CREDENTIAL, f"Bearer {credential}")])
        try:
            return await method(
                request,
                metadata=metadata,
                timeout=seconds,
                wait_for_ready=seconds > DEFAULT_SECONDS,
            )
        except grpc.aio.AioRpcError as error:
            raise status.decode(error) from error

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    def _renew(self) -> None:
        """Show and trust what the files hold by now; what does not fit as yet changes nothing.

        Calls that are under way go on: the channel that they use closes when the last of them ends.
        """
        try:
            self._credentials = _credentials(self._target, *self._files)
        except SettingsError as error:
            logger.warning("certificates not read anew", extra={"error": str(error)})
            return
        self._channel = None
        self._stubs = {}

    def _connect(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, OPTIONS)


def _credentials(
    target: str, root_certificates: str, certificate: str, key: str
) -> grpc.ChannelCredentials | None:
    if bool(certificate) != bool(key):
        raise SettingsError("a peer certificate and its key go together")
    if not root_certificates:
        if certificate or not is_loopback(target):
            raise SettingsError(f"{target} needs root certificates: it is reached by TLS only")
        return None
    authority = read_certificates(root_certificates)
    if not certificate:
        return grpc.ssl_channel_credentials(authority)
    return grpc.ssl_channel_credentials(authority, *read_pair(certificate, key))


def remaining() -> float:
    """Return the seconds a downstream call may take, within the caller's deadline."""
    return max(current_call().remaining - MARGIN_SECONDS, MARGIN_SECONDS)


class RemoteAuthenticator:
    """Asks metadata whom a credential stands for, with that very credential."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def introspect(self, credential: str) -> Identity:
        """Return whom a credential stands for."""
        stub = self._peer.stub(project_service_pb2_grpc.ProjectServiceStub)
        answer = await self._peer.call(
            stub.IntrospectCredential,
            project_service_pb2.IntrospectCredentialRequest(),
            credential=credential,
        )
        return Identity(
            principal=answer.principal,
            credential=credential,
            project_rights={
                entry.project.removeprefix("projects/"): _rights(entry.rights)
                for entry in answer.project_rights
            },
            installation_rights=_rights(answer.installation_rights),
            delegated_resource=answer.delegated_resource,
        )


def _rights(values: Any) -> frozenset[Right]:
    names = (access_pb2.Right.Name(value).removeprefix("RIGHT_") for value in values)
    return frozenset(Right(name) for name in names)
