"""Which events of a build somebody wants: batches cut down to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.builder.v1 import build_event_pb2, build_pb2, build_service_pb2

from services.common.errors import invalid_field

MAX_TAIL = 10_000
MAX_GREP = 1_000
_REGEX_BYTES = 1024 * 1024

Event = build_event_pb2.BuildEvent


@dataclass(frozen=True, slots=True)
class Selection:
    """What somebody wants to see of a build's events."""

    found: Callable[[bytes], object] | None
    """Finds the text wanted in a line; None: every line is wanted."""
    since_ns: int
    phase: int
    stream: int
    tail: int

    def select(self, batch: bytes) -> bytes:
        """Return a stored batch cut down to what is wanted; empty when nothing is."""
        return _packed([event for event in _events(batch) if self._wants(event)])

    def last(self, batch: bytes, count: int) -> tuple[bytes, int]:
        """Return the last so many events of a batch, and how many they are."""
        events = _events(batch)[-count:]
        return _packed(events), len(events)

    def _wants(self, event: Event) -> bool:
        if self.phase and event.phase != self.phase:
            return False
        if self.since_ns and event.time.ToNanoseconds() < self.since_ns:
            return False
        if self.found is None and not self.stream:
            return True
        if not event.HasField("log") or (self.stream and event.log.stream != self.stream):
            return False
        return self.found is None or bool(self.found(event.log.text.encode()))


def selection(request: build_service_pb2.StreamBuildEventsRequest) -> Selection | None:
    """Read what is wanted; None: everything.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    if not 0 <= request.tail <= MAX_TAIL:
        raise invalid_field("tail", f"must be 0 to {MAX_TAIL}")
    if request.phase not in build_pb2.PhaseKind.values():
        raise invalid_field("phase", "must be one of the six phases")
    if request.stream not in build_event_pb2.LogStream.values():
        raise invalid_field("stream", "must be STDOUT, STDERR or SYSTEM")
    found = Selection(
        found=_finder(request.grep) if request.grep else None,
        since_ns=request.since_time.ToNanoseconds() if request.HasField("since_time") else 0,
        phase=request.phase,
        stream=request.stream,
        tail=0 if request.cursor else request.tail,
    )
    return None if found == Selection(None, 0, 0, 0, 0) else found


def _finder(pattern: str) -> Callable[[bytes], object]:
    """Compile a regular expression whose search takes time linear in the line, whatever it is."""
    import re2  # noqa: PLC0415 - only those who grep need it

    if len(pattern) > MAX_GREP:
        raise invalid_field("grep", f"must have at most {MAX_GREP} characters")
    options = re2.Options()
    options.max_mem, options.log_errors = _REGEX_BYTES, False
    try:
        search: Callable[[bytes], object] = re2.compile(pattern.encode(), options).search
    except (re2.error, UnicodeEncodeError):
        raise invalid_field("grep", "must be a regular expression in RE2's syntax") from None
    return search


def _events(batch: bytes) -> list[Event]:
    return list(build_event_pb2.BuildEventBatch.FromString(batch).events)


def _packed(events: list[Event]) -> bytes:
    return bytes(build_event_pb2.BuildEventBatch(events=events).SerializeToString())
