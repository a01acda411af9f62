from __future__ import annotations

import base64
from typing import Any

import pytest

from services.common.errors import Reason, ServiceError
from services.common.listing import pagination
from services.common.listing.pagination import (
    Microseconds,
    decode_cursor,
    decode_token,
    encode_cursor,
    encode_token,
    page_size,
)

KEY = ("Modèle", -(2**63), 0.1, None, 2**63 - 1, "")


@pytest.mark.parametrize(("requested", "given"), [(0, 50), (1, 1), (1000, 1000), (2**31 - 1, 1000)])
def test_page_size(requested: int, given: int) -> None:
    assert page_size(requested) == given


def test_negative_page_size_is_refused() -> None:
    with pytest.raises(ServiceError) as caught:
        page_size(-1)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.metadata == {"field": "page_size"}


def test_key_survives_the_round_trip() -> None:
    assert decode_token(encode_token("q", KEY), "q") == KEY
    assert decode_cursor(encode_cursor("s", KEY), "s") == KEY


def test_special_doubles_survive() -> None:
    decoded = decode_token(encode_token("q", [float("inf"), -0.0, float("nan")]), "q")
    assert repr(decoded) == "(inf, -0.0, nan)"


def test_empty_token_is_the_first_page() -> None:
    assert decode_token("", "q") is None
    assert decode_cursor("", "s") is None


def test_token_is_safe_in_a_url_and_in_a_shell() -> None:
    token = encode_token("q", ["".join(map(chr, range(1, 256)))])
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def _refused(token: str, query: str = "q", shape: type[tuple[Any, ...]] = tuple) -> None:
    with pytest.raises(ServiceError) as caught:
        decode_token(token, query, shape)
    assert caught.value.reason is Reason.INVALID_PAGE_TOKEN


def test_other_query_is_refused() -> None:
    _refused(encode_token("q", KEY), "r")


def test_cursor_is_no_token_and_token_is_no_cursor() -> None:
    _refused(encode_cursor("q", KEY))
    with pytest.raises(ServiceError) as caught:
        decode_cursor(encode_token("q", KEY), "q")
    assert caught.value.reason is Reason.INVALID_CURSOR


def test_every_bit_flip_is_refused() -> None:
    token = encode_token("q", KEY)
    packed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for bit in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        _refused(base64.urlsafe_b64encode(flipped).decode().rstrip("="))


def test_every_changed_character_is_refused() -> None:
    token = encode_token("q", ["abc", 1])
    for place in range(len(token)):
        for character in "Aa0-_=+/ \n\0é":
            if character != token[place]:
                _refused(token[:place] + character + token[place + 1 :])


def test_every_truncation_and_extension_is_refused() -> None:
    token = encode_token("q", KEY)
    for length in range(1, len(token)):
        _refused(token[:length])
    for tail in ("=", "==", "A", "AAAA", "\n", "\0"):
        _refused(token + tail)


@pytest.mark.parametrize("token", ["garbage", "AAAAAAAAAAA", "\ud800", "A" * 100_000, "=", "💥"])
def test_garbage_is_refused(token: str) -> None:
    _refused(token)


def test_key_of_another_shape_is_refused() -> None:
    token = encode_token("q", ["a", 1])
    assert decode_token(token, "q", tuple[str, int]) == ("a", 1)
    _refused(token, shape=tuple[str, str])
    _refused(token, shape=tuple[str])


@pytest.mark.parametrize(
    "body",
    [
        b"\x91\xa2\xff\xfe",  # text that is no UTF-8
        b"\x91" * 5_000,  # lists within lists
        b"\x91\x91\x01",
        b"\x91\x81\x01\x02",  # a mapping
        b"\x91\xc4\x01a",  # bytes
        b"\x91\xcf" + b"\xff" * 8,  # a number that no column holds
        b"\x91\xa2a\0",  # text that PostgreSQL does not hold
        b"\x91\xd6\xff\0\0\0\0",  # a moment
        b"\x91\xd4\x05\0",  # a type of somebody's own
        b"",
    ],
)
def test_what_is_forged_with_a_right_checksum_is_refused(body: bytes) -> None:
    packed = body + pagination._checksum("page", "q", body)
    _refused(base64.urlsafe_b64encode(packed).decode().rstrip("="))


def test_a_moment_in_a_key_is_one() -> None:
    shape: type[tuple[Any, ...]] = tuple[Microseconds]
    assert decode_token(encode_token("q", [253_402_300_799_999_999]), "q", shape)
    for number in (-1, 253_402_300_800_000_000, 2**63 - 1):
        _refused(encode_token("q", [number]), shape=shape)
