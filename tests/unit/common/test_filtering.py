from __future__ import annotations

import time

import pytest

from services.common.errors import Reason, ServiceError
from services.common.listing.filter_syntax import And, Comparison, Not, Or
from services.common.listing.filtering import (
    Operator,
    OrderTerm,
    compile_filter,
    parse_filter,
    parse_order,
)
from tests.contract.common.filter_schema import FIELDS


def test_tree() -> None:
    def is_(name: str, position: int) -> Comparison:
        return Comparison((name,), Operator.EQUAL, 1, position)

    assert parse_filter("a=1 AND (b=1 OR NOT c=1)") == And(
        (is_("a", 0), Or((is_("b", 9), Not(is_("c", 20)))))
    )
    assert parse_filter('labels["a b"].NOT:"x"') == Comparison(
        ("labels", "a b", "NOT"), Operator.HAS, "x", 0
    )
    assert parse_filter(" \n") is None


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("state", 5),
        ("state =", 7),
        ("= 1", 0),
        ("state = RUNNING AND", 19),
        ("state = RUNNING state = FAILED", 16),
        ("(rows = 1", 9),
        ("rows = 1)", 8),
        ("rows ~ 1", 5),
        ("rows = 1 && rows = 2", 9),
        ('title = "open', 8),
        ('title = "a\\q"', 10),
        ('title = "a\0"', 10),
        ('title = "a\\u0000"', 8),
        ('title = "\\ud800"', 8),
        ('title = "\ud800"', 9),
        ('title = "\x7f"', 9),
        ('title = "a\nb"', 8),
        ("rows = 1e999", 7),
        ("rows = 9223372036854775808", 7),
        ("rows = 1 AND rows = 1abc", 20),
        ("rows = 1 AND rows = 2 OR rows = 3", 0),
        ("rows = 1 OR rows = 2 AND rows = 3", 12),
        ("NOT NOT rows = 1", 8),
        ("nothing = 1", 0),
        ("rows = 1 AND nothing.x = 1", 13),
        ("rows.x = 1", 0),
        ('rows = "1"', 0),
        ("rows = true", 0),
        ("rows:1", 0),
        ("rows = *", 0),
        ("title = 1", 0),
        ('title < "a"', 0),
        ("state = DONE", 0),
        ("state > RUNNING", 0),
        ('archived = "true"', 0),
        ('started > "yesterday"', 0),
        ('started > "2026-01-31"', 0),
        ('started > "2026-01-31T12:00:00"', 0),
        ('started > "2026-13-31T12:00:00Z"', 0),
        ('started > "0001-01-01T00:00:00+23:59"', 0),
        ('started:"2026-01-31T12:00:00Z"', 0),
        ('tags = "x"', 0),
        ('tags.a.b = "x"', 0),
        ("tags.team = 1", 0),
        ("params.depth = true", 0),
        ("metrics.f1.median > 1", 0),
        ("a" * 4097, 4096),
    ],
)
def test_refusals(text: str, position: int) -> None:
    with pytest.raises(ServiceError) as caught:
        expression = parse_filter(text)
        assert expression is not None
        compile_filter(expression, FIELDS)
    assert caught.value.reason is Reason.INVALID_FILTER
    assert caught.value.metadata["position"] == str(position)
    assert caught.value.metadata["problem"] in caught.value.message


def test_a_refusal_says_what_was_expected() -> None:
    with pytest.raises(ServiceError, match="at 3: unexpected end, expected"):
        parse_filter("a >")


def test_33_parentheses_are_refused_but_not_within_strings() -> None:
    with pytest.raises(ServiceError, match="parentheses deep"):
        parse_filter("(" * 33 + "rows < 0" + ")" * 33)
    assert parse_filter('title = "' + "(" * 100 + '"') is not None


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "(" * 4096,
        ")" * 4096,
        "NOT " * 1024,
        '"' * 4096,
        "'\\" * 2048,
        'a = "' + "\\" * 4091,
        "a" * 4096,
        "9" * 4096,
        "a" + ".a" * 2047,
        "a = 1 OR " * 455,
        " " * 4095 + "=",
        "1." * 2048,
    ],
)
def test_hostile_text_is_refused_fast(text: str) -> None:
    parse_filter("a = 1")
    start = time.perf_counter()
    with pytest.raises(ServiceError):
        parse_filter(text)
    assert time.perf_counter() - start < 0.5


ALLOWED = {"create_time", "title", "metrics.*"}


def test_order() -> None:
    assert parse_order("", ALLOWED) == []
    assert parse_order('create_time desc, metrics["val/loss"].max asc,metrics.f1', ALLOWED) == [
        OrderTerm(("create_time",), descending=True),
        OrderTerm(("metrics", "val/loss", "max"), descending=False),
        OrderTerm(("metrics", "f1"), descending=False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "title,",
        ",title",
        "title down",
        "title desc desc",
        "title DESC",
        "unknown",
        "metrics",
        "title.x",
        "title, create_time, title desc",
        "title; drop table runs",
        'metrics["\\u0000"]',
        "metrics.a" + ",metrics.a" * 300,
        ",".join(f"metrics.m{n}" for n in range(9)),
    ],
)
def test_order_refusals(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_order(text, ALLOWED)
    assert caught.value.reason is Reason.INVALID_ORDER
    assert caught.value.metadata["order_by"] == text[:200]


def test_101_comparisons_are_refused() -> None:
    with pytest.raises(ServiceError, match="more than 100 comparisons"):
        parse_filter(" OR ".join(["rows < 0"] * 101))
