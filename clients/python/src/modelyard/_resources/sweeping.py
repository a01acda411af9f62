"""A grid of builds: every combination of some parameters' values, so many at a time."""

from __future__ import annotations

import itertools
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from modelyard._transport.calls import Call, Flow, Pause, ask, call
from modelyard._values import encode_value
from modelyard.builder.v1 import build_pb2
from modelyard.builder.v1 import build_service_pb2 as service
from modelyard.errors import InvalidArgumentError

MAX_BUILDS = 256
MAX_PARALLEL = 4
ENDED = (
    build_pb2.BUILD_STATE_SUCCEEDED,
    build_pb2.BUILD_STATE_FAILED,
    build_pb2.BUILD_STATE_CANCELLED,
)
OnChange = Callable[[int, build_pb2.Build], None]
"""Called with a place in the grid and the build there, whenever it moved."""
_POLL_SECONDS = 0.5
_NAMESPACE = uuid.UUID("f2c2a7b4-9c1e-4f62-8f0a-5d3f3a0f1b9e")


def combinations(
    grid: Mapping[str, Sequence[object]], params: Mapping[str, object]
) -> list[dict[str, object]]:
    """Return the parameters of each build of a grid, the last key's values varying fastest.

    Raises:
        InvalidArgumentError: A key has no value or is a parameter already, or there are too many.
    """
    if not grid:
        raise _refusal("a sweep needs a parameter with values")
    for key, values in grid.items():
        if not values:
            raise _refusal(f"{key} has no value")
        if key in params:
            raise _refusal(f"{key} is a parameter and swept, too")
    # Counted before they are made: ten keys of ten values are too many to make.
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MAX_BUILDS:
        raise _refusal(f"{count:,} combinations are more than {MAX_BUILDS}")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def requests(
    order: service.CreateBuildRequest, varied: Iterable[Mapping[str, object]]
) -> list[service.CreateBuildRequest]:
    """Return an order for each combination, all in one group.

    Each has a request id that follows from what it says: ordered again it is the same build.
    """
    group = order.build.spec.group or f"sweep-{secrets.token_hex(4)}"
    made = []
    for params in varied:
        request = service.CreateBuildRequest()
        request.CopyFrom(order)
        spec = request.build.spec
        spec.group = group
        for key, value in params.items():
            spec.params[key].CopyFrom(encode_value(value, key=key))
        request.request_id = ""
        text = request.SerializeToString(deterministic=True).hex()
        request.request_id = str(uuid.uuid5(_NAMESPACE, text))
        made.append(request)
    return made


def sweep(
    wanted: Sequence[service.CreateBuildRequest], limit: int, on_change: OnChange | None
) -> Flow[list[build_pb2.Build]]:
    """Order builds as room is for them, until all have ended; return them in their order."""
    if limit < 1:
        raise _refusal("at least one build must be in progress at a time")
    waiting = deque(enumerate(wanted))
    found: dict[int, build_pb2.Build] = {}
    while True:
        active = [place for place, build in found.items() if build.state not in ENDED]
        while waiting and len(active) < limit:
            place, request = waiting.popleft()
            found[place] = yield from _tell(place, create(request), None, on_change)
            active.append(place)
        if not active:
            return [found[place] for place in range(len(wanted))]
        yield Pause(_POLL_SECONDS)
        for place in active:
            before = found[place]
            found[place] = yield from _tell(place, get(before.name), before, on_change)


def create(request: service.CreateBuildRequest) -> Call[build_pb2.Build]:
    """Order a build."""
    return call(request, service.CreateBuildResponse, lambda r: r.build)


def get(name: str) -> Call[build_pb2.Build]:
    """Get a build by its full name."""
    request = service.GetBuildRequest(name=name)
    return call(request, service.GetBuildResponse, lambda r: r.build)


def _tell(
    place: int,
    wanted: Call[build_pb2.Build],
    before: build_pb2.Build | None,
    on_change: OnChange | None,
) -> Flow[build_pb2.Build]:
    build = yield from ask(wanted)
    if on_change is not None and build != before:
        on_change(place, build)
    return build


def _refusal(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(problem, reason="INVALID_FIELD")
