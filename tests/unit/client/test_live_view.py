"""What a build prints cannot drive the terminal that shows it."""

from __future__ import annotations

import io

import pytest
from modelyard.builder.v1 import build_event_pb2
from modelyard.cli import live
from modelyard.cli.render import clean
from rich.console import Console

HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "a\rb",
    "a\x08b",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "a\N{LINE SEPARATOR}b",
    "lone \ud800",
]


@pytest.mark.parametrize("words", HOSTILE)
def test_nothing_a_terminal_obeys_is_left(words: str) -> None:
    assert clean(words).isprintable()
    assert clean("plain ümläut \N{SNOWMAN}\tx\n") == "plain ümläut \N{SNOWMAN}\tx\n"


def shown(*logs: build_event_pb2.LogLine, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=20, highlight=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live, "console", lambda: console)
        live.show_events(build_event_pb2.BuildEvent(log=log) for log in logs)
    return out.getvalue()


def test_a_bar_is_printed_over_on_terminals_and_left_out_elsewhere() -> None:
    bar = build_event_pb2.LogLine(text="10% " + "#" * 40, progress=True)
    line = build_event_pb2.LogLine(text="done")
    assert shown(bar, line, terminal=False) == "    done\n"
    first, last = shown(bar, line, terminal=True).split("\r")
    assert "10% ####" in first
    assert "\n" not in first
    assert last.startswith("\x1b[2K")
    assert "done" in last
