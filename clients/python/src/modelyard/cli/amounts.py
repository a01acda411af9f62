"""Amounts and pairs as people give them on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from modelyard.errors import InvalidArgumentError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def size(text: str) -> int:
    """Read `512M`, `2G` or a number of bytes; K, M, G and T are powers of 1,024."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise _refusal(f"{text!r} is no size, such as 512M or 2G")
    return int(float(found[1]) * 1024 ** _POWERS[found[2].lower()])


def duration(text: str) -> float:
    """Read `90s`, `30m`, `2h`, `1d` or a number of seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise _refusal(f"{text!r} is no duration, such as 90s, 30m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def pairs(texts: Iterable[str] | None) -> dict[str, str]:
    """Read texts of the form `key=value`."""
    found: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise _refusal(f"{text!r} is not key=value")
        found[key] = value
    return found


def values(texts: Iterable[str] | None) -> dict[str, object]:
    """Read `key=value`; a value that is JSON keeps its type, anything else is text."""
    return {key: _value(text) for key, text in pairs(texts).items()}


def durations(texts: Iterable[str] | None) -> dict[str, float]:
    """Read texts of the form `key=2h`."""
    return {key: duration(text) for key, text in pairs(texts).items()}


def counts(texts: Iterable[str] | None) -> dict[str, int]:
    """Read texts of the form `key=2`."""
    found = pairs(texts)
    if not all(text.isdecimal() for text in found.values()):
        raise _refusal(f"{' '.join(texts or ())!r} is not key=count")
    return {key: int(text) for key, text in found.items()}


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _refusal(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(problem, reason="INVALID_FIELD")
