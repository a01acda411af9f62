"""What every RPC passes through, in this order, whatever its kind.

Each interceptor is an asynchronous context manager around the handler: it sees
the call, and the errors on their way out; it never touches messages. The order
is the literal list `INTERCEPTORS`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from services.common import status
from services.common.auth import (
    MAX_CREDENTIAL,
    Authenticator,
    Call,
    Right,
    invalid_credential,
    right_missing,
)
from services.common.errors import Reason, ServiceError
from services.common.methods import Method
from services.common.names import project_of
from services.common.telemetry import Telemetry

logger = logging.getLogger(__name__)

UNARY_SECONDS = 60.0
STREAM_SECONDS = 24 * 3_600.0


class Incoming(Protocol):
    """The RPC as its interceptors see it."""

    call: Call
    method: Method
    context: grpc.aio.ServicerContext[Any, Any]

    async def first_request(self) -> Any:
        """Return the first request message, parsed."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """What the interceptors need."""

    authenticator: Authenticator
    telemetry: Telemetry


Interceptor = Callable[[Chain, Incoming], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def telemetry(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """Measure the call and make it a span of the caller's trace."""
    method, metadata = incoming.method.full_name, incoming.call.metadata
    with chain.telemetry.server_call(method, metadata) as outcome:
        try:
            yield
        finally:
            outcome.code = _code_name(incoming.context)


@asynccontextmanager
async def request_log(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """Log each call once, at its end; never its payload."""
    started = time.monotonic()
    try:
        yield
    finally:
        identity = incoming.call.identity
        logger.info(
            "rpc",
            extra={
                "method": incoming.method.full_name,
                "code": _code_name(incoming.context),
                "seconds": round(time.monotonic() - started, 4),
                "principal": identity.principal if identity else "",
            },
        )


@asynccontextmanager
async def errors(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """Turn what was raised into a documented error; nothing else leaves the server."""
    try:
        yield
    except ServiceError as error:
        _answer(incoming.context, error)
    except TimeoutError:
        message = "the deadline passed before the work was done"
        _answer(incoming.context, ServiceError(Reason.DEADLINE_EXCEEDED, message))
    except asyncio.CancelledError:
        incoming.context.set_code(grpc.StatusCode.CANCELLED)
        raise
    except Exception:
        error_id = secrets.token_hex(8)
        logger.exception(
            "internal error", extra={"error_id": error_id, "method": incoming.method.full_name}
        )
        _answer(
            incoming.context, ServiceError(Reason.INTERNAL, "internal error", error_id=error_id)
        )


@asynccontextmanager
async def authentication(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """Find out whom the call's bearer credential stands for."""
    scheme, _, credential = incoming.call.metadata.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not 0 < len(credential) <= MAX_CREDENTIAL:
        raise invalid_credential()
    incoming.call.identity = await chain.authenticator.introspect(credential)
    yield


@asynccontextmanager
async def authorisation(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """Demand the right that the RPC declares in its proto."""
    method, identity = incoming.method, incoming.call.caller
    if method.right is not Right.AUTHENTICATED:
        if method.resource:
            name = method.resource_of(await incoming.first_request())
            held = identity.may(method.right, project_of(name, method.resource))
        else:
            held = identity.may_everywhere(method.right)
        if not held:
            raise right_missing(method.right)
    yield


@asynccontextmanager
async def deadline(chain: Chain, incoming: Incoming) -> AsyncIterator[None]:
    """End the work when the caller's deadline passes, or the server's own maximum."""
    async with asyncio.timeout(incoming.call.remaining):
        yield


INTERCEPTORS: tuple[Interceptor, ...] = (
    telemetry,
    request_log,
    errors,
    authentication,
    authorisation,
    deadline,
)


def _answer(context: grpc.aio.ServicerContext[Any, Any], error: ServiceError) -> None:
    context.set_code(status.code_of(error))
    context.set_details(error.message)
    context.set_trailing_metadata(((status.DETAILS_KEY, status.encode(error)),))


def _code_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK"
