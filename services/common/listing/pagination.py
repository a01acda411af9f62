"""Opaque page tokens and stream cursors, and the page size rule.

A token is the key of the last row sent, as msgpack, followed by a checksum that
also covers the query it belongs to. A garbled token and one of another query are
therefore refused alike, and no state is kept for either. A token is no secret and
no proof: whoever forges one reads only what its query would show anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, overload

import msgspec

from services.common.errors import Reason, ServiceError, invalid_field

# Bounded by what a database holds: whoever forges a token gets nothing else there.
_Text = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z")]
_Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
KeyValue = _Text | _Integer | float | None
Key = tuple[KeyValue, ...]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999_999)]
"""A moment in a key, since 1970, up to the end of the year 9999."""
Shape = TypeVar("Shape", bound=tuple[Any, ...])

MAXIMUM_TOKEN_LENGTH = 8192
_CHECKSUM_BYTES = 8


def page_size(requested: int, *, default: int = 50, maximum: int = 1000) -> int:
    """Return the number of items to send: 0 asks for the default, more than the maximum is cut.

    Raises:
        ServiceError: INVALID_FIELD when negative.
    """
    if requested < 0:
        raise invalid_field("page_size", "must not be negative")
    return min(requested or default, maximum)


def encode_token(query: str, key: Sequence[KeyValue]) -> str:
    """Return the page token that continues a query after the row with this key."""
    return _encode("page", query, key)


@overload
def decode_token(token: str, query: str) -> Key | None: ...
@overload
def decode_token(token: str, query: str, shape: type[Shape]) -> Shape | None: ...
def decode_token(token: str, query: str, shape: Any = Key) -> Any:
    """Return the key in a page token, or None for the empty token of a first page.

    Args:
        token: what the caller sent.
        query: everything of the request but page size and token, as text.
        shape: the tuple type the key must have, such as `tuple[str, int]`.

    Raises:
        ServiceError: INVALID_PAGE_TOKEN when garbled or of another query.
    """
    key = _decode("page", token, query, shape)
    if key is None and token:
        message = "page_token is garbled or belongs to another query; start again without one"
        raise ServiceError(Reason.INVALID_PAGE_TOKEN, message)
    return key


def encode_cursor(stream: str, key: Sequence[KeyValue]) -> str:
    """Return the cursor that resumes a stream after the message with this key."""
    return _encode("cursor", stream, key)


@overload
def decode_cursor(cursor: str, stream: str) -> Key | None: ...
@overload
def decode_cursor(cursor: str, stream: str, shape: type[Shape]) -> Shape | None: ...
def decode_cursor(cursor: str, stream: str, shape: Any = Key) -> Any:
    """Return the key in a cursor, or None for the empty cursor.

    Raises:
        ServiceError: INVALID_CURSOR when garbled or of another stream.
    """
    key = _decode("cursor", cursor, stream, shape)
    if key is None and cursor:
        message = "cursor is garbled or belongs to another stream"
        raise ServiceError(Reason.INVALID_CURSOR, message)
    return key


def cursor_expired() -> ServiceError:
    """Say that what comes after a cursor is no longer kept."""
    message = "what followed the cursor is no longer kept; list again and go on from there"
    return ServiceError(Reason.CURSOR_EXPIRED, message)


def _encode(purpose: str, scope: str, key: Sequence[KeyValue]) -> str:
    body = msgspec.msgpack.encode(tuple(key))
    packed = body + _checksum(purpose, scope, body)
    return base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def _decode(purpose: str, text: str, scope: str, shape: Any) -> Any:
    """Return the key, or None when the text is not one that `_encode` returned for this scope."""
    if not text or len(text) > MAXIMUM_TOKEN_LENGTH:
        return None
    try:
        raw = text.encode("ascii")
        packed = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        body, checksum = packed[:-_CHECKSUM_BYTES], packed[-_CHECKSUM_BYTES:]
        if checksum != _checksum(purpose, scope, body):
            return None
        key = msgspec.msgpack.decode(body, type=Key)
        # Base64 has spare bits at its end: only the one spelling handed out is taken.
        if _encode(purpose, scope, key) != text:
            return None
        return key if shape is Key else msgspec.convert(key, shape)
    except (UnicodeError, binascii.Error, msgspec.MsgspecError):
        return None


def _checksum(purpose: str, scope: str, body: bytes) -> bytes:
    digest = hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, person=purpose.encode())
    digest.update(scope.encode("utf-8", "surrogatepass"))
    # The length keeps the border between body and scope where it was.
    digest.update(len(body).to_bytes(4))
    return digest.digest()
