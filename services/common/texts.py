"""Texts of requests hold no NUL: PostgreSQL keeps none, and SQLite must not answer otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.common.errors import invalid_field

AS_THEY_ARE = frozenset({"modelyard.metadata.v1.ColumnProfile"})
"""Messages with other people's data in them, which are kept whole and as bytes."""


def check_texts(message: Message) -> None:
    """Refuse a message with NUL in any of its texts.

    Raises:
        ServiceError: INVALID_FIELD.
    """
    for name in _spoilt(message):
        raise invalid_field(name, "must not contain NUL")


def _spoilt(message: Message) -> Iterator[str]:
    """Name the fields that hold a text with NUL."""
    for field in _fields(message.DESCRIPTOR):
        value = getattr(message, field.name)
        if field.message_type is None:
            texts = value if field.is_repeated else (value,)
            if any("\0" in text for text in texts):
                yield field.name
        elif not field.is_repeated:
            if message.HasField(field.name):
                yield from _within(field.name, (value,))
        elif field.message_type.GetOptions().map_entry:
            yield from _of_map(field, value)
        else:
            yield from _within(field.name, value)


def _within(name: str, messages: Any) -> Iterator[str]:
    for one in messages:
        for inner in _spoilt(one):
            yield f"{name}.{inner}"


def _of_map(field: FieldDescriptor, entries: Any) -> Iterator[str]:
    assert field.message_type is not None  # noqa: S101 - a map is a message
    for part, holders in (("key", entries.keys), ("value", entries.values)):
        kind = field.message_type.fields_by_name[part]
        if kind.message_type is not None:
            yield from _within(field.name, holders())
        elif _is_text(kind) and any("\0" in text for text in holders()):
            yield field.name


@cache
def _fields(kind: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Return the fields of a message in which there may be texts."""
    return tuple(field for field in kind.fields if _may_hold_text(field, frozenset()))


def _may_hold_text(field: FieldDescriptor, seen: frozenset[str]) -> bool:
    kind = field.message_type
    if kind is None:
        return _is_text(field)
    if kind.full_name in seen | AS_THEY_ARE:
        return False
    return any(_may_hold_text(inner, seen | {kind.full_name}) for inner in kind.fields)


def _is_text(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING
