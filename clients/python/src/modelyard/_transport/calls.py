"""What a client wants done, described without doing it.

A method of a resource group builds one of these descriptions; the blocking and
the asyncio connection each know how to carry it out. So every method is written
once, for both clients.

The RPC of a call is found by its request message, which the lint rules of the
protos make unique to one RPC.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from modelyard._transport.resume import Follow

ResponseT = TypeVar("ResponseT", bound=Message)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)

PAGE_SIZE = 200
BYTES_TIMEOUT = 600.0
"""Seconds that a unary call about stored bytes may take."""


@dataclass(frozen=True, slots=True)
class Call(Generic[ResultT_co]):
    """One unary call, and what its caller wants of the response."""

    request: Message
    response: type[Message]
    pick: Callable[[Any], ResultT_co]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Pages(Generic[ResultT_co]):
    """A list, read page by page."""

    request: Message
    response: type[Message]
    pick: Callable[[Any], Iterable[ResultT_co]]

    def page(self, token: str) -> Call[tuple[list[ResultT_co], str]]:
        """Return the call that reads the page of `token`, the first one's being empty."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        fields: Any = request
        fields.page_token = token
        fields.page_size = fields.page_size or PAGE_SIZE
        return Call(request, self.response, lambda r: (list(self.pick(r)), r.next_page_token))


@dataclass(frozen=True, slots=True)
class Download:
    """A server stream whose messages go to a sink, in order; `read` parses them."""

    request: Message
    read: Callable[[bytes], Any]
    sink: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """A stream of requests, messages or their bytes; each response goes to a sink.

    A `Pause` among them waits until the next one is ready. `failed` returns what went wrong in
    `requests`, which gRPC itself would hide.
    """

    requests: Iterator[Message | bytes | Pause]
    request: type[Message]
    response: type[Message]
    sink: Callable[[Any], None]
    failed: Callable[[], Exception | None]


@dataclass(frozen=True, slots=True)
class Pause:
    """Some seconds to wait; 0 only lets the asyncio client be cancelled."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work(Generic[ResultT_co]):
    """Something that blocks; `cancel`, called from another thread, makes it end at once."""

    work: Callable[[], ResultT_co]
    cancel: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Trusted:
    """Asks whom the connection trusts: authorities in PEM; None where those of the system are."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """Flows to carry out side by side, so many at a time; the answer is the list of their results.

    The flows are taken one by one, as room is: a generator may do work between two of
    them, while those before are under way. The first error ends the others and is raised.
    """

    flows: Iterable[Flow[Any]]
    limit: int


Command: TypeAlias = (
    "Call[Any] | Download | Upload | Pause | Work[Any] | Trusted | Parallel | Follow[Any]"
)
Flow = Generator["Command", Any, ResultT]
"""Several commands in a row: each is yielded, its result or its error comes back."""


def call(
    request: Message,
    response: type[ResponseT],
    pick: Callable[[ResponseT], ResultT],
    *,
    timeout: float | None = None,
) -> Call[ResultT]:
    """Describe a unary call."""
    return Call(request, response, pick, timeout)


def pages(
    request: Message, response: type[ResponseT], pick: Callable[[ResponseT], Iterable[ResultT]]
) -> Pages[ResultT]:
    """Describe the reading of a list."""
    return Pages(request, response, pick)


def ask(wanted: Call[ResultT]) -> Flow[ResultT]:
    """Make a call from within a flow."""
    result: ResultT = yield wanted
    return result


def trusted() -> Flow[bytes | None]:
    """Ask whom the connection trusts, from within a flow."""
    authorities: bytes | None = yield Trusted()
    return authorities


def blocking(work: Callable[[], ResultT], cancel: Callable[[], object]) -> Flow[ResultT]:
    """Do what blocks, from within a flow."""
    result: ResultT = yield Work(work, cancel)
    return result


def side_by_side(flows: Iterable[Flow[ResultT]], *, limit: int) -> Flow[list[ResultT]]:
    """Carry out flows at the same time, from within a flow."""
    results: list[ResultT] = yield Parallel(flows, limit)
    return results


def new_request_id() -> str:
    """Return an id that makes one logical call safe to repeat."""
    return str(uuid.uuid4())


_PATHS: dict[type[Message], str] = {}


def path_of(request: type[Message]) -> str:
    """Return the path of the RPC that takes this request."""
    if request not in _PATHS:
        _PATHS[request] = _find_path(request)
    return _PATHS[request]


def _find_path(request: type[Message]) -> str:
    wanted = request.DESCRIPTOR
    for service in wanted.file.services_by_name.values():
        for method in service.methods:
            if method.input_type.full_name == wanted.full_name:
                return f"/{service.full_name}/{method.name}"
    raise TypeError(f"{wanted.full_name} is no RPC's request")
