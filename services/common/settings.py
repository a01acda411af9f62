"""Settings from the environment: one frozen dataclass a service, typed and checked."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SettingsError(Exception):
    """A setting is missing or has a value it may not have."""


def load(cls: type[T], prefix: str, environ: Mapping[str, str] = os.environ) -> T:
    """Read a dataclass's fields from `{prefix}{FIELD}`, converted to their types.

    Raises:
        SettingsError: a value does not fit its field, or a required one is missing.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass
        variable = prefix + field.name.upper()
        if variable in environ:
            values[field.name] = environ[variable]
    try:
        return msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{prefix}*: {error}") from None


@contextmanager
def exiting_when_bad() -> Iterator[None]:
    """Start a program: a bad setting ends it with one line and status 2."""
    try:
        yield
    except SettingsError as error:
        print(f"modelyard: bad setting: {error}", file=sys.stderr)
        sys.exit(2)


def load_or_exit(cls: type[T], prefix: str) -> T:
    """Read settings for a program's start: a bad one ends it with one line and status 2."""
    with exiting_when_bad():
        return load(cls, prefix)
