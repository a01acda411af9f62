"""Answers for people (tables) and for programs (JSON)."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from modelyard.cli.context import as_json

# rich is imported where it is used: `modelyard --help` need not wait for it.
if TYPE_CHECKING:
    from rich.console import Console

# What a terminal obeys: C0 but tab and newline, C1, separators of lines, marks that turn the
# direction of writing (what is read would not be what is there), lone surrogates.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_UNBOUNDED = 10_000
Columns = Mapping[str, Callable[[Any], object]]


def console() -> Console:
    """Return a console on standard output; what goes to a file or a pipe is not wrapped."""
    from rich.console import Console  # noqa: PLC0415

    is_terminal = sys.stdout.isatty()
    width = None if is_terminal else _UNBOUNDED
    return Console(highlight=False, soft_wrap=not is_terminal, width=width)


def clean(text: str) -> str:
    """Make control characters visible, so that no output of a build can drive the terminal."""
    return _CONTROL.sub(lambda found: _escaped(ord(found[0])), text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def show_list(messages: Iterable[Any], columns: Columns) -> None:
    """Write messages as a table, or as a JSON list."""
    if as_json():
        write_json([as_dict(message) for message in messages])
        return
    show_table(list(columns), ([pick(m) for pick in columns.values()] for m in messages))


def write_messages(messages: Iterable[Any]) -> None:
    """Write messages as a JSON list."""
    write_json([as_dict(message) for message in messages])


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """Write rows as a table for people."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for place, heading in enumerate(headings):
        # What a row is about is what the next command is given: never cut.
        table.add_column(heading, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(text(cell)) for cell in row))
    console().print(table)


def show_one(message: Any, fields: Mapping[str, object]) -> None:
    """Write one message as lines of `name  value`, or as a JSON object."""
    if as_json():
        write_json(as_dict(message))
        return
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        if value not in ("", None, [], {}):
            print(f"{name:<{width}}  {text(value)}")


def write_json(value: object) -> None:
    """Write JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def json_of(message: Any, *, indent: int | None = 2) -> str:
    """Return a message as JSON; without indent on one line."""
    return json.dumps(as_dict(message), indent=indent, ensure_ascii=False)


def text(value: object) -> str:
    """Write a value for people."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(value)
    return clean(str(value))


def leaf(name: str) -> str:
    """Return the last part of a resource name."""
    return name.rpartition("/")[2]


def short_version(name: str) -> str:
    """Write a version's name as `model/number`."""
    parts = name.split("/")
    return f"{parts[3]}/{parts[5]}" if len(parts) == 6 else name


def state(enum: Any, value: int) -> str:
    """Write an enum's value without its prefix."""
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    return str(enum.Name(value).removeprefix(prefix))


def moment(timestamp: Any) -> str:
    """Write a moment in local time; `-` when it is unset."""
    if not timestamp.seconds:
        return "-"
    return f"{timestamp.ToDatetime(tzinfo=UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def seconds_between(start: Any, end: Any) -> str:
    """Write how long something took; `-` when it has not ended."""
    if not (start.seconds and end.seconds):
        return "-"
    return f"{(end.ToNanoseconds() - start.ToNanoseconds()) / 1e9:.1f} s"


def as_dict(message: Any) -> Any:
    """Return a message as JSON has it."""
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415

    return MessageToDict(message, preserving_proto_field_name=True)


def value(message: Any) -> object:
    """Return a parameter's value as Python has it."""
    from modelyard._values import decode_value  # noqa: PLC0415

    return decode_value(message)


def pairs(mapping: Any) -> str:
    """Return a mapping on one line, by key."""
    return ", ".join(f"{key}={text(found)}" for key, found in sorted(mapping.items()))
