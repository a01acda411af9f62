"""Who calls, and what they may do.

Every RPC carries a bearer credential. Metadata owns credentials; every service
asks it whom one stands for, with that very credential, and keeps the answer for
a few seconds. A delegation is a credential like any other.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from google.protobuf.message import Message

from services.common.errors import Reason, ServiceError, invalid_field
from services.common.rpc.draining import Drain
from services.common.sql.idempotency import Key

EVERY_PROJECT = "-"
CACHE_SECONDS = 4.0  # what is revoked ends within 5, calls and all
CACHE_SIZE = 10_000
CREDENTIAL = "authorization"
"""The metadata, and header, that says who calls."""
MAX_CREDENTIAL = 4_096
MAX_REQUEST_ID = 64


class Right(StrEnum):
    """Name what an RPC demands; the values of `common.v1.Right`, which documents them."""

    AUTHENTICATED = "AUTHENTICATED"
    READ = "READ"
    WRITE = "WRITE"
    BUILD = "BUILD"
    DEPLOY = "DEPLOY"
    ADMIN = "ADMIN"
    WORK = "WORK"
    CONTROL = "CONTROL"
    DELEGATE = "DELEGATE"
    OPERATE = "OPERATE"
    AUDIT = "AUDIT"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a credential stands for, and the rights it carries."""

    principal: str
    credential: str = field(repr=False)
    project_rights: Mapping[str, frozenset[Right]] = field(default_factory=dict)
    installation_rights: frozenset[Right] = frozenset()
    delegated_resource: str = ""
    voucher: str = ""
    """The service that renewed a delegation; known to metadata only."""

    def may(self, right: Right, project: str) -> bool:
        """Say whether the right is held in a project."""
        own = self.project_rights.get(project, frozenset())
        everywhere = self.project_rights.get(EVERY_PROJECT, frozenset())
        return right is Right.AUTHENTICATED or right in own or right in everywhere

    def may_everywhere(self, right: Right) -> bool:
        """Say whether the right is held on the whole installation."""
        return right is Right.AUTHENTICATED or right in self.installation_rights

    def require(self, right: Right, project: str) -> None:
        """Refuse a caller who lacks a right in a project."""
        if not self.may(right, project):
            raise right_missing(right)


def right_missing(right: Right) -> ServiceError:
    """Say that the caller lacks a right; one text, whether or not the resource exists."""
    return ServiceError(
        Reason.RIGHT_MISSING, f"this needs the right {right} on the resource", right=right.value
    )


def invalid_credential() -> ServiceError:
    """Refuse a credential; one text for every way it can be wrong."""
    return ServiceError(Reason.INVALID_CREDENTIAL, "a valid token is needed; see `modelyard login`")


class Authenticator(Protocol):
    """Finds out whom a credential stands for."""

    async def introspect(self, credential: str) -> Identity:
        """Return whom a credential stands for.

        Raises:
            ServiceError: INVALID_CREDENTIAL, or SERVICE_UNAVAILABLE when nobody can tell.
        """
        ...


class CachingAuthenticator:
    """Keeps another authenticator's answers for a few seconds."""

    def __init__(self, authenticator: Authenticator, *, seconds: float = CACHE_SECONDS) -> None:
        self._authenticator = authenticator
        self._seconds = seconds
        self._answers: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()

    async def introspect(self, credential: str) -> Identity:
        """Return whom a credential stands for, as it was a few seconds ago at most."""
        kept = self.known(credential)
        if kept is not None:
            return kept
        asked = time.monotonic()  # an answer that was long in coming may be as old
        identity = await self._authenticator.introspect(credential)
        key = _key(credential)
        self._answers[key] = (asked + self._seconds, identity)
        self._answers.move_to_end(key)
        if len(self._answers) > CACHE_SIZE:
            self._answers.popitem(last=False)
        return identity

    def known(self, credential: str) -> Identity | None:
        """Return whom a credential stands for if that was found out a few seconds ago at most."""
        kept = self._answers.get(_key(credential))
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None


def _key(credential: str) -> bytes:
    return hashlib.sha256(credential.encode()).digest()


def bearer(authorization: str) -> str:
    """Return the bearer credential that a call shows; empty when there is none."""
    scheme, _, credential = authorization.partition(" ")
    return credential if scheme.lower() == "bearer" and len(credential) <= MAX_CREDENTIAL else ""


@dataclass(slots=True)
class Call:
    """The RPC in progress."""

    method: str
    metadata: Mapping[str, str]
    deadline: float
    drain: Drain = field(default_factory=Drain)
    """The server's: a call that holds its answer back gives it when that begins."""
    identity: Identity | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def caller(self) -> Identity:
        """Return whom the call's credential stands for."""
        if self.identity is None:
            raise invalid_credential()
        return self.identity

    @property
    def remaining(self) -> float:
        """Return the seconds left until the call's deadline."""
        return max(self.deadline - time.monotonic(), 0.0)

    def key(self, request: Message) -> Key | None:
        """Return what makes this write idempotent; None when it has no request id."""
        request_id: str = request.request_id  # type: ignore[attr-defined]  # writes have one
        if not request_id:
            return None
        if len(request_id) > MAX_REQUEST_ID or not request_id.isprintable():
            raise invalid_field("request_id", "must be a UUID")
        payload = request.SerializeToString(deterministic=True)
        fingerprint = hashlib.sha256(payload).digest()
        return Key(self.caller.principal, request_id, self.method, fingerprint)


_CALL: ContextVar[Call] = ContextVar("modelyard_call")


def current_call() -> Call:
    """Return the RPC in progress in this task."""
    return _CALL.get()


def enter_call(call: Call) -> None:
    """Make a call the one in progress in this task."""
    _CALL.set(call)
