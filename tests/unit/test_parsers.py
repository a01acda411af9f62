"""Whatever text or bytes callers send: each parser takes it, or refuses it with its own reason."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.artifact.manifest import Manifest
from services.common import names
from services.common.errors import Reason, ServiceError
from services.common.listing import pagination
from services.common.listing.filter_syntax import parse_filter, parse_order
from services.common.listing.pagination import (
    decode_cursor,
    decode_token,
    encode_cursor,
    encode_token,
)

# Written of what the language is made of, most texts get far into it.
filters = st.lists(
    st.sampled_from(
        [
            *("a", "metrics", "name", ".", "[", "]", '"x"', "'y'", "=", "!=", "<", ">=", ":", "*"),
            *(
                "AND",
                "OR",
                "NOT",
                "(",
                ")",
                "1",
                "-1.5e300",
                "true",
                " ",
                "\\",
                '"',
                "\0",
                "é",
                "-",
            ),
        ]
    ),
    max_size=40,
).map(" ".join)
texts = st.text(max_size=200) | filters
keys = st.lists(
    st.none()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False),
    max_size=4,
).map(tuple)
KINDS = [
    kind
    for kind in vars(names).values()
    if isinstance(kind, type)
    and issubclass(kind, names.ResourceName)
    and kind.__subclasses__() == []
]
few = settings(max_examples=150, deadline=None)


def written(value: Any) -> bytes:
    """Write JSON nearly as manifests are written."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def refused(parse: Callable[[], Any], *reasons: Reason) -> bool:
    """Say whether it was refused; any other error is one of the parser's own."""
    try:
        parse()
    except ServiceError as error:
        assert error.reason in reasons  # noqa: PT017 - whether it is refused is the question
        return True
    return False


@few
@given(texts)
def test_filters_and_orders(text: str) -> None:
    refused(lambda: parse_filter(text), Reason.INVALID_FILTER)
    refused(lambda: parse_order(text, ["a", "name", "metrics.*"]), Reason.INVALID_ORDER)


@few
@given(st.text(max_size=80) | st.text(string.ascii_letters + string.digits + "-_=", max_size=80))
def test_no_text_is_a_token_or_cursor_by_chance(text: str) -> None:
    if text:
        assert refused(lambda: decode_token(text, "q"), Reason.INVALID_PAGE_TOKEN)
        assert refused(lambda: decode_cursor(text, "s"), Reason.INVALID_CURSOR)


@few
@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=5,
    ).map(msgspec.msgpack.encode)
)
def test_of_what_is_forged_only_keys_are_taken(body: bytes) -> None:
    packed = body + pagination._checksum("page", "q", body)
    token = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    if not refused(lambda: decode_token(token, "q"), Reason.INVALID_PAGE_TOKEN):
        assert encode_token("q", decode_token(token, "q") or ()) == token


@few
@given(keys, st.text(max_size=20), st.text(max_size=20))
def test_tokens_and_cursors_say_what_they_were_made_of(key: Any, query: str, other: str) -> None:
    token, cursor = encode_token(query, key), encode_cursor(query, key)
    assert decode_token(token, query) == key
    assert decode_cursor(cursor, query) == key
    assert refused(lambda: decode_cursor(token, query), Reason.INVALID_CURSOR)
    if other != query:
        assert refused(lambda: decode_token(token, other), Reason.INVALID_PAGE_TOKEN)


@few
@given(
    st.sampled_from(KINDS),
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            ["projects", "models", "versions", "a", "-", "1", "0", "..", "é", "\n", ""]
        ),
        max_size=8,
    ).map("/".join),
)
def test_a_name_is_refused_or_is_written_as_it_was_read(kind: Any, text: str) -> None:
    if not refused(lambda: kind.parse(text), Reason.INVALID_NAME):
        assert str(kind.parse(text)) == text


@few
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.text(max_size=9)
        | st.fixed_dictionaries(
            {
                "mode": st.sampled_from([0o644, 0o755, 0o777, -1]),
                "path": st.sampled_from(
                    ["a", "a/b", "../a", "/a", "a//b", "A", "", "é", "e\u0301"]
                ),
                "sha256": st.sampled_from(["0" * 64, "F" * 64, "f" * 63]),
                "size": st.sampled_from([0, 1, -1, 2**53]),
            }
        ),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=6,
    ).map(written)
)
def test_a_manifest_is_refused_or_is_written_as_it_was_read(data: bytes) -> None:
    allowed = (Reason.INVALID_MANIFEST, Reason.INVALID_PATH, Reason.LIMIT_EXCEEDED)
    if not refused(lambda: Manifest.parse(data), *allowed):
        assert Manifest.parse(data).encode() == data
