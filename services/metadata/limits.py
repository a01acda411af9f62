"""What text and maps in requests must obey: the limits that several resources share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from services.common.errors import Reason, ServiceError, invalid_field

DISPLAY_NAME = 200
DESCRIPTION = 65_536
LABELS = 64
LABEL_KEY = 63
LABEL_VALUE = 255
PRINCIPAL = 200
VERSION_LABEL = 128
CARD = 262_144
LICENSE = 128
IMAGE = 512
REASON = 1_000
FAILURE_REASON = 63
FAILURE_MESSAGE = 4_000
KEY = 250
VALUE_TEXT = 65_536
LIST_VALUES = 1_000
LIST_DEPTH = 4

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def line(text: str, field: str, limit: int, *, required: bool = False) -> str:
    """Return a line of text, or refuse it: too long, empty though required, or unprintable."""
    if required and not text.strip():
        raise invalid_field(field, "must not be empty")
    return _checked(text, field, limit, _CONTROL)


def lines(text: str, field: str, limit: int) -> str:
    """Return text of several lines, or refuse it: too long or unprintable."""
    return _checked(text, field, limit, _CONTROL_IN_LINES)


def source(text: str, field: str, limit: int) -> str:
    """Return source text, which may hold form feeds and escapes, but no NUL."""
    if "\0" in text:
        raise invalid_field(field, "must not hold NUL")
    return _checked(text, field, limit, None)


def labels(found: Mapping[str, str], field: str) -> dict[str, str]:
    """Return labels or tags, or refuse them."""
    if len(found) > LABELS:
        raise invalid_field(field, f"must not hold more than {LABELS} entries")
    return {
        line(key, field, LABEL_KEY, required=True): line(value, f"{field}.{key[:99]}", LABEL_VALUE)
        for key, value in found.items()
    }


def digest(text: str, field: str) -> str:
    """Return a SHA-256 digest in hex, or refuse it."""
    if not _DIGEST.fullmatch(text):
        raise invalid_field(field, "must be 64 lowercase hex digits")
    return text


def limit_exceeded(limit: str, maximum: int) -> ServiceError:
    """Say that a published limit was passed."""
    message = f"more than {maximum} {limit.replace('_', ' ')}"
    return ServiceError(Reason.LIMIT_EXCEEDED, message, limit=limit, maximum=str(maximum))


def _checked(text: str, field: str, limit: int, refused: re.Pattern[str] | None) -> str:
    if len(text) > limit:
        raise invalid_field(field, f"must not be longer than {limit} characters")
    if refused is not None and refused.search(text):
        raise invalid_field(field, "must not hold control characters")
    return text
