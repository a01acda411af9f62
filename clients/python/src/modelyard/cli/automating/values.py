"""Values of files as the commands mean them: names, lengths of time, sizes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from modelyard.cli import amounts
from modelyard.cli.automating.document import Value
from modelyard.errors import InvalidArgumentError


def named(value: Value, resolve: Any) -> str:
    """Read the name of a resource, in short or in full."""
    return str(checked(value, resolve, text=value.read(str)))


def checked(value: Value, make: Any, *, text: object = None) -> Any:
    """Make something of a value; what is wrong with it is said with its line."""
    try:
        return make(value.plain() if text is None else text)
    except InvalidArgumentError as error:
        value.place.refuse(f"is wrong: {error.message}")


def duration(value: Value) -> Duration:
    """Read a length of time as a message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds(value)))
    return message


def seconds(value: Value | None) -> float:
    """Read a length of time such as `90s`, `10m`, `6h` or `1d`."""
    if value is None:
        return 0.0
    return float(checked(value, amounts.duration, text=str(value.data)))


def size(value: Value) -> int:
    """Read a size such as `512MiB` or `2G`."""
    return int(checked(value, amounts.size, text=str(value.data)))
