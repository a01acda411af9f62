"""Calls that are refused as soon as they arrive: their service has no turn for them.

It is found out from a call's metadata alone. The request is neither received nor parsed, and
no interceptor sees the call, so refusing costs a fraction of what even a small call does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from services.common.audit.entries import new_entry
from services.common.auth import CREDENTIAL, Identity, bearer
from services.common.errors import Reason
from services.common.rpc import status
from services.common.rpc.interceptors import Chain
from services.common.rpc.methods import Method
from services.common.rpc.turns import no_turn

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]
if TYPE_CHECKING:  # grpc's own class takes no parameters at run time
    Handler = grpc.RpcMethodHandler[Any, Any]


@dataclass(frozen=True, slots=True)
class Door:
    """Stands before one method's handler."""

    handler: Handler
    method: Method
    chain: Chain
    answer: Handler = field(init=False)

    def __post_init__(self) -> None:
        """Make the handler of those that are refused, once: to be cheap is its point."""
        error = no_turn()
        code, details, trailers = status.code_of(error), error.message, status.trailers(error)

        async def refuse(_requests: object, context: Context) -> None:
            context.set_code(code)
            context.set_details(details)
            context.set_trailing_metadata(trailers)

        # Whatever kind of RPC it is: this kind alone answers without awaiting a request.
        handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
        object.__setattr__(self, "answer", handler)

    def open(self, metadata: Metadata) -> Handler:
        """Return the method's own handler, or one that refuses."""
        chain = self.chain
        if chain.turns is None or not chain.turns.are_all_taken:
            return self.handler
        identity = _caller(metadata, chain.known)
        if not chain.turns.are_out(identity.principal if identity else ""):
            return self.handler
        self._note(identity)
        return self.answer

    def _note(self, identity: Identity | None) -> None:
        """Count what is refused; the trail has it as any refusal, but for what it was about."""
        method, trail = self.method, self.chain.trail
        self.chain.telemetry.count_refused(method.full_name)
        if trail is not None and method.is_recorded:
            entry = new_entry(
                actor=identity.principal if identity else "",
                delegation=identity.delegated_resource if identity else "",
                method=method.full_name[1:],
                resource="",
                request_id="",
                outcome=Reason.LIMIT_EXCEEDED,
            )
            trail.gather(entry)


def _caller(metadata: Metadata, known: Callable[[str], Identity | None]) -> Identity | None:
    sent = [value for key, value in metadata if key == CREDENTIAL]
    if len(sent) != 1 or not isinstance(sent[0], str):
        return None
    return known(bearer(sent[0]))
