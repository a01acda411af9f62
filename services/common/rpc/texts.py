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
    for field, is_repeated, is_map in _fields(message.DESCRIPTOR):
        value = getattr(message, field.name)
        if field.message_type is None:
            if any("\0" in text for text in value) if is_repeated else "\0" in value:
                yield field.name
        elif is_map:
            yield from _of_map(field, value)
        elif is_repeated:
            yield from _within(field.name, value)
        elif message.HasField(field.name):
            yield from _within(field.name, (value,))


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
def _fields(kind: Descriptor) -> tuple[tuple[FieldDescriptor, bool, bool], ...]:
    """Return the fields of a message in which there may be texts; which are lists, and maps."""
    found = [field for field in kind.fields if _may_hold_text(field, frozenset())]
    return tuple((field, field.is_repeated, _is_map(field)) for field in found)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _may_hold_text(field: FieldDescriptor, seen: frozenset[str]) -> bool:
    kind = field.message_type
    if kind is None:
        return _is_text(field)
    if kind.full_name in seen | AS_THEY_ARE:
        return False
    return any(_may_hold_text(inner, seen | {kind.full_name}) for inner in kind.fields)


def _is_text(field: FieldDescriptor) -> bool:
    return field.type == FieldDescriptor.TYPE_STRING
