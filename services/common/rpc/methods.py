"""RPC methods as their protos declare them: message types, and the right demanded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from modelyard.common.v1 import access_pb2

from services.common.auth import Right


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its path, its messages, and what it demands of its caller."""

    full_name: str
    request_class: type[Message]
    client_streaming: bool
    server_streaming: bool
    right: Right
    resource: str
    peers: frozenset[str]
    """Which processes of the suite may call it, where they show certificates; none: anybody."""
    is_recorded: bool
    """Whether each of its calls leaves an entry in the audit trail, not only refused ones."""

    @property
    def is_stream(self) -> bool:
        """Say whether either side sends more than one message."""
        return self.client_streaming or self.server_streaming

    def resource_of(self, request: Any) -> str:
        """Read the resource name that decides on rights from a request."""
        value = request
        for part in self.resource.split("."):
            value = getattr(value, part)
        return str(value)


class UndeclaredRightError(Exception):
    """An RPC declares no right; a server must not start with it."""


def methods_of(service: ServiceDescriptor) -> dict[str, Method]:
    """Describe a service's RPCs, by gRPC path.

    Raises:
        UndeclaredRightError: one of them declares no right.
    """
    return {
        f"/{service.full_name}/{method.name}": _method(service, method)
        for method in service.methods
    }


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    access = method.GetOptions().Extensions[access_pb2.access]
    if access.right == access_pb2.RIGHT_UNSPECIFIED:
        raise UndeclaredRightError(f"{service.full_name}/{method.name} declares no right")
    name = access_pb2.Right.Name(access.right).removeprefix("RIGHT_")
    return Method(
        full_name=f"/{service.full_name}/{method.name}",
        request_class=GetMessageClass(method.input_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        right=Right(name),
        resource=access.resource,
        peers=frozenset(
            access_pb2.Peer.Name(peer).removeprefix("PEER_").lower() for peer in access.peers
        ),
        is_recorded=_is_recorded(Right(name), access.audit),
    )


def _is_recorded(right: Right, audit: int) -> bool:
    if audit == access_pb2.AUDIT_UNSPECIFIED:
        return right not in {Right.READ, Right.AUTHENTICATED}
    return audit == access_pb2.AUDIT_EVERY_CALL
