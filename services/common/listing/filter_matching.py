"""Filters in memory: the language of `filtering`, over values instead of columns.

A `FieldMatcher` turns one comparison of a field into a test of one value. As in
SQL, what has no value (None) matches nothing, `!=` included, and everything under
NOT; unknown fields and comparisons a field cannot make are refused at once.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from services.common.listing.filter_syntax import (
    PRESENT,
    And,
    Comparison,
    Expression,
    FilterProblemError,
    Literal,
    Not,
    Operator,
    parse_filter,
    refuse_filter,
)

T = TypeVar("T")
Path = tuple[str, ...]
Match = Callable[[T], bool]
FieldMatcher = Callable[[Path, Operator, Literal], Match[T]]

_COMPARE: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}
_EQUALITY = {Operator.EQUAL, Operator.NOT_EQUAL}


def match_filter(text: str, fields: Mapping[str, FieldMatcher[T]]) -> Match[T]:
    """Return the test that a filter is; the empty filter lets everything pass.

    Raises:
        ServiceError: INVALID_FILTER.
    """
    expression = parse_filter(text)
    return _always if expression is None else compile_match(expression, fields)


def compile_match(expression: Expression, fields: Mapping[str, FieldMatcher[T]]) -> Match[T]:
    """Return the test that an expression is over the given fields.

    Raises:
        ServiceError: INVALID_FILTER for an unknown field or a comparison its field cannot make.
    """
    if isinstance(expression, Comparison):
        return _compile_comparison(expression, fields)
    if isinstance(expression, Not):
        refused = compile_match(expression.term, fields)
        return lambda value: not refused(value)
    terms = [compile_match(term, fields) for term in expression.terms]
    if isinstance(expression, And):
        return lambda value: all(term(value) for term in terms)
    return lambda value: any(term(value) for term in terms)


def text_matcher(get: Callable[[T], str | None]) -> FieldMatcher[T]:
    """Compare text: `=`, `!=`, and `:` for "contains", whatever the case."""

    def compile_text(path: Path, sign: Operator, literal: Literal) -> Match[T]:
        _refuse_path(path)
        if literal is PRESENT:
            return lambda value: get(value) is not None
        if not isinstance(literal, str):
            raise FilterProblemError("wants a quoted string")
        if sign is Operator.HAS:
            wanted = literal.lower()
            return _known(get, lambda found: wanted in found.lower())
        if sign not in _EQUALITY:
            raise FilterProblemError("text is compared with = != and :")
        return _compared(get, sign, literal)

    return compile_text


def word_matcher(get: Callable[[T], str | None], allowed: Collection[str]) -> FieldMatcher[T]:
    """Compare one of some words with `=` and `!=`; a word that is none of them is refused."""

    def compile_word(path: Path, sign: Operator, literal: Literal) -> Match[T]:
        _refuse_path(path)
        if literal is PRESENT:
            return lambda value: get(value) is not None
        if not isinstance(literal, str) or literal not in allowed:
            raise FilterProblemError(f"wants one of {', '.join(sorted(allowed))}")
        if sign not in _EQUALITY:
            raise FilterProblemError("this is compared with = and !=")
        return _compared(get, sign, literal)

    return compile_word


def number_matcher(get: Callable[[T], float | None]) -> FieldMatcher[T]:
    """Compare an integer or a double by value; NaN is not greater than anything."""

    def compile_number(path: Path, sign: Operator, literal: Literal) -> Match[T]:
        _refuse_path(path)
        if literal is PRESENT:
            return lambda value: get(value) is not None
        if isinstance(literal, bool) or not isinstance(literal, int | float):
            raise FilterProblemError("wants a number")
        if sign is Operator.HAS:
            raise FilterProblemError("':' is for text and maps, or ':*'")
        return _compared(get, sign, literal)

    return compile_number


def map_matcher(get: Callable[[T], Mapping[str, str]]) -> FieldMatcher[T]:
    """Compare entries of a map of texts: `tags.team = "risk"`, `tags:"team"`."""

    def compile_map(path: Path, sign: Operator, literal: Literal) -> Match[T]:
        if path:
            return _entry(get, path[0])(path[1:], sign, literal)
        if literal is PRESENT:
            return lambda value: bool(get(value))
        if sign is not Operator.HAS or isinstance(literal, bool):
            raise FilterProblemError('wants a key: name.key or name["a key"]')
        return lambda value: str(literal) in get(value)

    return compile_map


def _entry(get: Callable[[T], Mapping[str, str]], key: str) -> FieldMatcher[T]:
    def entry(value: T) -> str | None:
        return get(value).get(key)

    return text_matcher(entry)


def _compile_comparison(comparison: Comparison, fields: Mapping[str, FieldMatcher[T]]) -> Match[T]:
    name, *rest = comparison.path
    if name not in fields:
        problem = f"unknown field {name}; known are {', '.join(sorted(fields))}"
        refuse_filter(comparison.position, problem)
    try:
        return fields[name](tuple(rest), comparison.operator, comparison.literal)
    except FilterProblemError as error:
        refuse_filter(comparison.position, f"{'.'.join(comparison.path)}: {error}")


def _compared(get: Callable[[T], Any], sign: Operator, literal: object) -> Match[T]:
    compare = _COMPARE[sign]
    return _known(get, lambda found: compare(found, literal))


def _known(get: Callable[[T], Any], test: Callable[[Any], bool]) -> Match[T]:
    def match(value: T) -> bool:
        found = get(value)
        return found is not None and test(found)

    return match


def _refuse_path(path: Path) -> None:
    if path:
        raise FilterProblemError("has nothing below it")


def _always(_: object) -> bool:
    return True
