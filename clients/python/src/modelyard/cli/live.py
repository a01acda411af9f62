"""The live view of a build: its phases, and the lines that it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from modelyard.cli.render import clean, console, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelyard.builder.v1 import build_event_pb2

_STYLES = {"SUCCEEDED": "green", "FAILED": "bold red", "CANCELLED": "yellow", "SKIPPED": "dim"}
_MARKS = {"RUNNING": "▸", "SUCCEEDED": "✓", "FAILED": "✗", "CANCELLED": "■", "SKIPPED": "·"}


def show_events(events: Iterable[build_event_pb2.BuildEvent], *, quiet: bool = False) -> None:
    """Write a build's events as they come; `quiet` leaves out what it printed.

    A line that is still being printed over is shown on terminals, until the next takes its place.
    """
    out = console()
    started: dict[int, int] = {}
    for event in events:
        line = _line(event, started, quiet=quiet)
        if line is None or (event.log.progress and not out.is_terminal):
            continue
        if event.log.progress:
            line.truncate(out.width - 1, overflow="ellipsis")
        if out.is_terminal:  # whatever bar was there is printed over
            out.control(Control((ControlType.ERASE_IN_LINE, 2)))
        out.print(line, end="\r" if event.log.progress else "\n")


def _line(
    event: build_event_pb2.BuildEvent, started: dict[int, int], *, quiet: bool
) -> Text | None:
    kind = event.WhichOneof("kind")
    if kind == "phase_changed":
        return _phase(event, started)
    if kind == "state_changed":
        return _state(event)
    if quiet:
        return None
    if kind == "metric":
        point = event.metric
        return Text(
            f"    {_one_line(point.key)} = {text(point.value)}  (step {point.step})", "cyan"
        )
    return Text(f"    {_one_line(event.log.text)}", "dim")


def _phase(event: build_event_pb2.BuildEvent, started: dict[int, int]) -> Text:
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415

    name = build_pb2.PhaseKind.Name(event.phase).removeprefix("PHASE_KIND_").lower()
    state = build_pb2.PhaseState.Name(event.phase_changed.state).removeprefix("PHASE_STATE_")
    now = event.time.ToNanoseconds()
    if state == "RUNNING":
        started[event.phase] = now
        return Text(f"  {_MARKS[state]} {name}")
    took = (now - started.get(event.phase, now)) / 1e9
    failure = event.phase_changed.failure
    why = f": {failure.reason} {clean(failure.message)}" if failure.reason else ""
    return Text(f"  {_MARKS.get(state, '·')} {name}  {took:.1f} s{why}", _STYLES.get(state, ""))


def _state(event: build_event_pb2.BuildEvent) -> Text:
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415

    state = build_pb2.BuildState.Name(event.state_changed.state).removeprefix("BUILD_STATE_")
    failure = event.state_changed.failure
    why = f": {failure.reason} {clean(failure.message)}" if failure.reason else ""
    return Text(f"build {state.lower()}{why}", _STYLES.get(state, "bold"))


def _one_line(words: str) -> str:
    return clean(words).replace("\n", "\\x0a")
