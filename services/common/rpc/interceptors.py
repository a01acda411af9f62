"""What every RPC passes through, in this order, whatever its kind.

Each interceptor sees the call on its way in, and its error on the way out; it
never touches messages. The order is the literal list `INTERCEPTORS`; the way out
is the way in, backwards. They are plain methods and not context managers because
every microsecond here is paid by every call.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from services.common.audit.entries import OK, Entry, new_entry
from services.common.audit.noting import Note, leave_note
from services.common.audit.trail import Trail
from services.common.auth import (
    CREDENTIAL,
    Authenticator,
    Call,
    Identity,
    Right,
    bearer,
    invalid_credential,
    right_missing,
)
from services.common.errors import Reason, ServiceError, is_passing
from services.common.names import project_of
from services.common.rpc import status
from services.common.rpc.callers import Callers
from services.common.rpc.draining import Drain, stopping
from services.common.rpc.limiting import Limiter
from services.common.rpc.methods import Method
from services.common.rpc.turns import Turns
from services.common.telemetry import MeasuredCall, Telemetry

logger = logging.getLogger(__name__)

UNARY_SECONDS = 60.0
STREAM_SECONDS = 24 * 3_600.0
RECHECK_SECONDS = 5.0
PATIENCE_SECONDS = 45.0


class Incoming(Protocol):
    """The RPC as its interceptors see it."""

    call: Call
    method: Method
    context: grpc.aio.ServicerContext[Any, Any]
    measured: MeasuredCall | None
    alarm: asyncio.Timeout | None
    is_sending: bool
    is_endless: bool
    note: Note | None
    first: Any
    """The first request message, once it is parsed."""

    async def first_request(self) -> Any:
        """Return the first request message, parsed."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """What the interceptors need."""

    authenticator: Authenticator
    telemetry: Telemetry
    recheck_seconds: float = RECHECK_SECONDS
    """For how long an open stream relies on rights that its caller was seen to hold."""
    message_seconds: float | None = None
    """How long a message of an upload may take to come; None: any time."""
    callers: Callers | None = None
    """Knows the suite's certificates, one of which whoever connects must show; None: need not."""
    trail: Trail | None = None
    """Where calls of the servicer are recorded."""
    limiter: Limiter | None = None
    """The server's own."""
    turns: Turns | None = None
    """Those of the servicer's service; None for RPCs that take none."""
    known: Callable[[str], Identity | None] = lambda _: None
    """Tells whom a credential stands for if nobody need be asked."""
    drain: Drain = field(default_factory=Drain)
    """The server's own."""


class Interceptor(Protocol):
    """One concern of every RPC; it has no state of its own."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Let the call in; what is raised ends it, as an error of the handler would."""
        ...

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """See the call out; return the error that those entered before are to see."""
        ...


class Measuring:
    """Measure the call and make it a span of the caller's trace."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Start the clock and the span."""
        method, metadata = incoming.method.full_name, incoming.call.metadata
        incoming.measured = chain.telemetry.start_call(method, metadata)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Observe what became of it."""
        assert incoming.measured is not None  # noqa: S101 - entered before
        chain.telemetry.end_call(incoming.measured, _code_name(incoming.context))
        return error


class Logging:
    """Log each call once, at its end; never its payload."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Do nothing yet."""

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Write the line."""
        if not logger.isEnabledFor(logging.INFO):
            return error
        identity = incoming.call.identity
        logger.info(
            "rpc",
            extra={
                "method": incoming.method.full_name,
                "code": _code_name(incoming.context),
                "seconds": round(time.monotonic() - incoming.call.started, 4),
                "principal": identity.principal if identity else "",
            },
        )
        return error


class Errors:
    """Turn what was raised into a documented error; nothing else leaves the server."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Do nothing yet."""

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Answer with the error."""
        if error is None:
            return None
        if isinstance(error, ServiceError):
            _answer(incoming.context, error)
        elif isinstance(error, TimeoutError):
            message = "the deadline passed before the work was done"
            _answer(incoming.context, ServiceError(Reason.DEADLINE_EXCEEDED, message))
        elif isinstance(error, asyncio.CancelledError):
            incoming.context.set_code(grpc.StatusCode.CANCELLED)
            return error
        elif isinstance(error, Exception):
            _answer(incoming.context, _internal(incoming.method, error))
        else:
            return error
        return None


class Auditing:
    """Have the call recorded: with its first write, else, and when it is refused, by itself."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Leave a note for the first write to find."""
        if chain.trail is not None and incoming.method.is_recorded:
            incoming.note = Note(lambda made, outcome: _audited(incoming, made, outcome))
            leave_note(incoming.note)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Record what no write has."""
        if chain.trail is None:
            return error
        note, outcome = incoming.note, _outcome(error)
        # Who went away after a write was not refused, and that write has recorded it.
        is_missing = note is not None and not (note.taken and outcome in {OK, Reason.CANCELLED})
        if is_missing or outcome in _REFUSALS:
            chain.trail.gather(_audited(incoming, "", outcome))
        return error


class Authentication:
    """Find out whom the call's bearer credential stands for."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Refuse a call without a valid credential."""
        credential = bearer(incoming.call.metadata.get(CREDENTIAL, ""))
        if not credential:
            raise invalid_credential()
        incoming.call.identity = await chain.authenticator.introspect(credential)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Let it pass."""
        return error


class Limiting:
    """Refuse what is over the limits of its principal."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Count the call in; a request that drips is waited for here, where it is counted."""
        if chain.limiter is None:
            return
        principal, method = incoming.call.caller.principal, incoming.method
        chain.limiter.enter(principal, is_stream=method.is_stream)
        if not method.is_stream:
            chain.limiter.await_request(principal)
            try:
                await incoming.first_request()
            finally:
                chain.limiter.end_wait(principal)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Count it out."""
        if chain.limiter is not None:
            principal, method = incoming.call.caller.principal, incoming.method
            chain.limiter.leave(principal, is_stream=method.is_stream)
        return error


class Sharing:
    """Let principals take turns, when their service has more to do than it can at once."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Wait for a turn, or refuse the call; its request is there as a whole."""
        if chain.turns is not None:
            await incoming.first_request()
            await chain.turns.take(incoming.call.caller.principal)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Give the turn to the next."""
        if chain.turns is not None:
            chain.turns.give_back()
        return error


class Authorisation:
    """Demand the right that the RPC declares in its proto."""

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Refuse a caller who lacks the right on the resource."""
        method, identity = incoming.method, incoming.call.caller
        if chain.callers is not None and not chain.callers.may_call(
            incoming.context, incoming.call.metadata, method.peers
        ):
            raise right_missing(method.right)
        if method.right is Right.AUTHENTICATED:
            return
        if method.resource:
            name = method.resource_of(await incoming.first_request())
            held = identity.may(method.right, project_of(name, method.resource))
        else:
            held = identity.may_everywhere(method.right)
        if not held:
            raise right_missing(method.right)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Let it pass."""
        return error


class Deadline:
    """End the work when the caller's deadline passes, or the server's own maximum.

    What has no end of its own ends when the server stops, too.
    """

    async def enter(self, chain: Chain, incoming: Incoming) -> None:
        """Set the alarm."""
        incoming.alarm = asyncio.timeout(incoming.call.remaining)
        await incoming.alarm.__aenter__()
        if incoming.is_endless:
            chain.drain.enter(incoming)

    async def leave(
        self, chain: Chain, incoming: Incoming, error: BaseException | None
    ) -> BaseException | None:
        """Turn the alarm off; one that went off is a TimeoutError."""
        assert incoming.alarm is not None  # noqa: S101 - entered before
        if incoming.is_endless:
            chain.drain.leave(incoming)
        kind = None if error is None else type(error)
        try:
            await incoming.alarm.__aexit__(kind, error, None)
        except TimeoutError as late:
            return stopping() if incoming.is_endless and chain.drain.begun else late
        return error


_AUTHENTICATION, _AUTHORISATION = Authentication(), Authorisation()
INTERCEPTORS: tuple[Interceptor, ...] = (
    Measuring(),
    Logging(),
    Errors(),
    Auditing(),
    Deadline(),
    _AUTHENTICATION,
    Limiting(),
    Sharing(),
    _AUTHORISATION,
)


async def recheck(chain: Chain, incoming: Incoming, age: float) -> bool:
    """See whether the caller of an open stream may still call; False when nobody can tell.

    While metadata is away or busy, a stream lives on for less than the minute within which a
    revoked credential must end it.

    Args:
        chain: what the interceptors need.
        incoming: the stream's call.
        age: how many seconds ago it was last seen.

    Raises:
        ServiceError: INVALID_CREDENTIAL, RIGHT_MISSING; what passes after a while.
    """
    try:
        await _AUTHENTICATION.enter(chain, incoming)
        await _AUTHORISATION.enter(chain, incoming)
    except ServiceError as error:
        if not is_passing(error) or age > PATIENCE_SECONDS:
            raise
        return False
    return True


_REFUSALS = {Reason.INVALID_CREDENTIAL, Reason.RIGHT_MISSING}
"""What is recorded of every RPC, also of those that only read."""


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return OK
    if isinstance(error, ServiceError):
        return error.reason
    if isinstance(error, asyncio.CancelledError):
        return Reason.CANCELLED
    return Reason.DEADLINE_EXCEEDED if isinstance(error, TimeoutError) else Reason.INTERNAL


def _audited(incoming: Incoming, made: str, outcome: str) -> Entry:
    identity, first, method = incoming.call.identity, incoming.first, incoming.method
    # What is about the installation names something by `name`, or nothing at all.
    asked = (
        method.resource_of(first)
        if first is not None and method.resource
        else getattr(first, "name", "")
    )
    return new_entry(
        actor=identity.principal if identity else "",
        delegation=identity.delegated_resource if identity else "",
        method=method.full_name[1:],
        resource=made or asked,
        request_id=getattr(first, "request_id", ""),
        outcome=outcome,
    )


def _internal(method: Method, error: Exception) -> ServiceError:
    error_id = secrets.token_hex(8)
    extra = {"error_id": error_id, "method": method.full_name}
    logger.error("internal error", exc_info=error, extra=extra)
    return ServiceError(Reason.INTERNAL, "internal error", error_id=error_id)


def _answer(context: grpc.aio.ServicerContext[Any, Any], error: ServiceError) -> None:
    context.set_code(status.code_of(error))
    context.set_details(error.message)
    context.set_trailing_metadata(status.trailers(error))


def _code_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
