"""Records: the lines of a spool's data file.

Each is a JSON array whose first item says what it is (NaN and the infinities are written as
Python's json does):

    ["m", step, time in µs, {metric: value, …}]     ["p", key, value]       ["t", key, value]
    ["d", {role, dataset, version}]                 ["c", code facts]       ["e", environment facts]
    ["i", image]                        ["g", metric, "minimize" or "maximize"]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

MAX_KEY = 250
MAX_TAG_KEY = 63
MAX_TAG_VALUE = 255
MAX_TEXT = 65_536
MAX_LIST = 1_000
MAX_DEPTH = 4
MAX_PARAM_LINE = 1024 * 1024
GOALS = ("minimize", "maximize")

# What the server refuses is refused where it is logged: later it would only be left out.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_UNPRINTABLE_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")

ParamValue = bool | int | float | str | list["ParamValue"]


def encode(record: list[Any]) -> bytes:
    """Return a record as a line."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def number_text(number: float) -> str:
    """Return a float as a record holds it; NaN and infinities included."""
    if math.isfinite(number):
        return repr(number)
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def check_key(key: object) -> str:
    """Return a metric's or parameter's key, or raise ValueError."""
    if not _is_line(key, MAX_KEY):
        raise ValueError(f"a key is a line of 1 to {MAX_KEY} characters, not {key!r}")
    return key


def check_tag(key: object, value: object) -> tuple[str, str]:
    """Return a tag as text, or raise ValueError."""
    if not _is_line(key, MAX_TAG_KEY):
        raise ValueError(f"a tag's key is a line of 1 to {MAX_TAG_KEY} characters, not {key!r}")
    text = str(value)
    if len(text) > MAX_TAG_VALUE or _UNPRINTABLE.search(text):
        raise ValueError(f"tag {key!r}: a line of at most {MAX_TAG_VALUE} characters")
    return key, text


def _is_line(text: object, limit: int) -> TypeGuard[str]:
    """Say whether something is text that the server takes as a name of something."""
    if not isinstance(text, str) or len(text) > limit or _UNPRINTABLE.search(text):
        return False
    return bool(text.strip())


def param_value(key: str, value: Any, *, depth: int = 0) -> ParamValue:
    """Return a parameter's value as plain Python; scalars and arrays of numpy are taken too.

    Raises:
        ValueError: It is of no type that a parameter may have, or too long.
    """
    if isinstance(value, bool | float):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, int):
        return _checked_int(key, int(value))
    if isinstance(value, str):
        return _checked_text(key, str(value))
    if isinstance(value, list | tuple):
        return _checked_list(key, value, depth)
    if callable(getattr(value, "tolist", None)):
        return param_value(key, value.tolist(), depth=depth)
    if callable(getattr(value, "item", None)):
        return param_value(key, value.item(), depth=depth)
    kind = type(value).__name__
    raise ValueError(f"parameter {key!r}: int, float, bool, str or a list of them, not {kind}")


def _checked_int(key: str, value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"parameter {key!r}: an integer has at most 64 bits")
    return value


def _checked_text(key: str, value: str) -> str:
    if len(value) > MAX_TEXT:
        raise ValueError(f"parameter {key!r}: at most {MAX_TEXT} characters")
    if _UNPRINTABLE_IN_LINES.search(value):
        raise ValueError(f"parameter {key!r}: no control characters but tabs and ends of lines")
    return value


def _checked_list(key: str, value: list[Any] | tuple[Any, ...], depth: int) -> list[ParamValue]:
    if len(value) > MAX_LIST or depth >= MAX_DEPTH:
        raise ValueError(f"parameter {key!r}: at most {MAX_LIST} values, {MAX_DEPTH} lists deep")
    return [param_value(key, part, depth=depth + 1) for part in value]


def param_lines(params: Mapping[str, ParamValue]) -> bytes:
    """Return parameters as lines, one each, so that one that is refused spoils no other."""
    lines = [encode(["p", key, value]) for key, value in params.items()]
    if lines and max(map(len, lines)) > MAX_PARAM_LINE:
        raise ValueError(f"a parameter takes at most {MAX_PARAM_LINE} bytes")
    return b"".join(lines)


def tag_lines(tags: Mapping[str, str]) -> bytes:
    """Return tags as lines, one each."""
    return b"".join(encode(["t", key, value]) for key, value in tags.items())


def goal_lines(goals: Mapping[str, str]) -> bytes:
    """Return goals for metrics as lines, one each, or raise ValueError."""
    for key, goal in goals.items():
        if goal not in GOALS:
            raise ValueError(f"goal of {check_key(key)!r}: minimize or maximize, not {goal!r}")
    return b"".join(encode(["g", check_key(key), goal]) for key, goal in goals.items())


def check_group(group: str) -> str:
    """Return a group's id, or raise ValueError."""
    if group and not _ID.fullmatch(group):
        raise ValueError(f"a group's id is lowercase letters, digits and dashes, not {group!r}")
    return group


def check_notes(notes: str) -> str:
    """Return notes, or raise ValueError."""
    if len(notes) > MAX_TEXT or _UNPRINTABLE_IN_LINES.search(notes):
        raise ValueError(f"notes are text of at most {MAX_TEXT} characters")
    return notes
