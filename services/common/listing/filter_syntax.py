r"""The syntax of `filter` and `order_by`: text to frozen trees, without a database.

The filter language is a subset of AIP-160:

    metrics["val/loss"].max > 0.7 AND (tags.team = "risk" OR NOT labels.env:"prod")

A comparison is `path operator literal`. A path is dotted; a part that is not a
plain word is quoted in brackets. Operators are `= != < <= > >=` and `:` ("has":
contains the text; `:*` means is present). Literals are quoted strings (`"` or
`'`, escapes `\" \' \\ \uXXXX`), numbers, `true`, `false` and bare words
(states). AND and OR mix only with parentheses: AIP-160 and SQL read a mixture
differently, so a guess would be wrong for half of the callers.

Everything is linear in the length of the text, and every refusal says where.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from lark import (
    Lark,
    Token,
    Transformer,
    UnexpectedCharacters,
    UnexpectedInput,
    UnexpectedToken,
    v_args,
)

from services.common.errors import Reason, ServiceError

MAXIMUM_LENGTH = 4096
MAXIMUM_DEPTH = 32
MAXIMUM_COMPARISONS = 100
MAXIMUM_ORDER_TERMS = 8


class Operator(StrEnum):
    """A comparison's operator."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"


class Presence:
    """The literal `*`: any value at all."""


PRESENT = Presence()
Literal = str | int | float | bool | Presence


@dataclass(frozen=True, slots=True)
class Comparison:
    """One `path operator literal`, and where it begins (characters from 0)."""

    path: tuple[str, ...]
    operator: Operator
    literal: Literal
    position: int


@dataclass(frozen=True, slots=True)
class And:
    """True when every term is."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True when any term is."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the term is not."""

    term: Expression


Expression = And | Or | Not | Comparison


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """One key to sort by."""

    path: tuple[str, ...]
    descending: bool


class FilterProblemError(ValueError):
    """A comparison that its field cannot make; `compile_filter` adds where it stands."""


def parse_filter(text: str) -> Expression | None:
    """Return the tree of a filter, or None when it is empty.

    Raises:
        ServiceError: INVALID_FILTER with `position` and `problem`.
    """
    if not text.strip(" \t\r\n"):
        return None
    return _parse_filter(text)


@functools.lru_cache(256)
def _parse_filter(text: str) -> Expression:
    """Parse a filter; the same few are asked for again and again."""
    _check_text(text, refuse_filter)
    try:
        expression = _open(_parse(text, start="disjunction"))
    except UnexpectedInput as error:
        position, problem = _explain(error, text)
        refuse_filter(position, problem)
    except _RefusedError as error:
        refuse_filter(error.position, error.problem)
    found = comparisons(expression)
    if len(found) > MAXIMUM_COMPARISONS:
        position = found[MAXIMUM_COMPARISONS].position
        refuse_filter(position, f"more than {MAXIMUM_COMPARISONS} comparisons")
    return expression


def parse_order(text: str, allowed: Collection[str]) -> list[OrderTerm]:
    """Return the terms of an `order_by`: `path [asc|desc], ...`.

    Args:
        text: what the caller sent; empty gives no terms.
        allowed: names of fields; `metrics.*` allows any path below `metrics`.

    Raises:
        ServiceError: INVALID_ORDER when it does not parse, or names an unknown field or one twice.
    """
    if not text.strip(" \t\r\n"):
        return []
    return list(_parse_order(text, tuple(sorted(allowed))))


@functools.lru_cache(256)
def _parse_order(text: str, allowed: tuple[str, ...]) -> tuple[OrderTerm, ...]:
    def refuse(position: int, problem: str) -> NoReturn:
        message = f"order_by is wrong at {position}: {problem}"
        raise ServiceError(Reason.INVALID_ORDER, message, order_by=text[:200])

    _check_text(text, refuse)
    try:
        found: list[tuple[OrderTerm, int]] = _parse(text, start="order")
    except UnexpectedInput as error:
        refuse(*_explain(error, text))
    except _RefusedError as error:
        refuse(error.position, error.problem)
    seen: set[tuple[str, ...]] = set()
    for term, position in found:
        if not _is_allowed(term.path, allowed):
            refuse(position, f"unknown field; sortable are {', '.join(allowed)}")
        if term.path in seen:
            refuse(position, "this field is named twice")
        seen.add(term.path)
    if len(found) > MAXIMUM_ORDER_TERMS:
        refuse(found[MAXIMUM_ORDER_TERMS][1], f"more than {MAXIMUM_ORDER_TERMS} fields")
    return tuple(term for term, _ in found)


def refuse_filter(position: int, problem: str) -> NoReturn:
    """Raise INVALID_FILTER for a problem at a position (characters from 0)."""
    message = f"filter is wrong at {position}: {problem}"
    raise ServiceError(Reason.INVALID_FILTER, message, position=str(position), problem=problem)


_GRAMMAR = r"""
?disjunction: conjunction (_OR conjunction)*
?conjunction: unary (_AND unary)*
?unary: _NOT primary -> negation
    | primary
?primary: comparison
    | _LPAR disjunction _RPAR -> group
comparison: path OPERATOR literal
path: WORD (_DOT WORD | _LSQB STRING _RSQB)*
literal: STRING -> text
    | NUMBER -> number
    | TRUE -> true
    | FALSE -> false
    | WORD -> word
    | STAR -> star

order: order_term (_COMMA order_term)*
order_term: path [DIRECTION]

_OR: "OR"
_AND: "AND"
_NOT: "NOT"
TRUE: "true"
FALSE: "false"
STAR: "*"
DIRECTION: "asc" | "desc"
_LPAR: "("
_RPAR: ")"
_LSQB: "["
_RSQB: "]"
_DOT: "."
_COMMA: ","
OPERATOR: /!=|<=|>=|[=<>:]/
WORD: /[A-Za-z_][A-Za-z0-9_-]*/
NUMBER: /-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z0-9_.])/
STRING: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/
%ignore /[ \t\r\n]+/
"""

_NAMES = {
    "_OR": "OR",
    "_AND": "AND",
    "_NOT": "NOT",
    "_LPAR": "'('",
    "_RPAR": "')'",
    "_LSQB": "'['",
    "_RSQB": "']'",
    "_DOT": "'.'",
    "_COMMA": "','",
    "OPERATOR": "an operator",
    "WORD": "a name",
    "NUMBER": "a number",
    "STRING": "a quoted string",
    "TRUE": "true",
    "FALSE": "false",
    "STAR": "'*'",
    "DIRECTION": "asc or desc",
    "$END": "the end",
}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_BUT_SPACE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# An unterminated string reaches to the end, so that the scan stays linear.
_STRING_OR_PARENTHESIS = re.compile(
    r""""(?:[^"\\]|\\.)*+(?:"|\\?$)|'(?:[^'\\]|\\.)*+(?:'|\\?$)|[()]""",
    re.DOTALL,
)


class _RefusedError(Exception):
    """What the grammar lets pass and the language does not."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _Group:
    """An expression in parentheses, told apart from one without."""

    expression: Expression


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Build the trees while parsing, so that no depth of the text is depth of the stack."""

    def disjunction(self, *terms: Expression | _Group) -> Or:
        for term in terms:
            if isinstance(term, And):
                position = _first(term).position
                raise _RefusedError(position, "AND beside OR: say which with parentheses")
        return Or(tuple(_open(term) for term in terms))

    def conjunction(self, *terms: Expression | _Group) -> And:
        return And(tuple(_open(term) for term in terms))

    def negation(self, term: Expression | _Group) -> Not:
        return Not(_open(term))

    def group(self, term: Expression | _Group) -> _Group:
        return _Group(_open(term))

    def comparison(
        self, path: tuple[tuple[str, ...], int], operator: Token, literal: Literal
    ) -> Comparison:
        if literal is PRESENT and operator != Operator.HAS:
            raise _RefusedError(path[1], "'*' goes with ':' only")
        return Comparison(path[0], Operator(str(operator)), literal, path[1])

    def path(self, *parts: Token) -> tuple[tuple[str, ...], int]:
        names = tuple(_unquote(p) if p.type == "STRING" else str(p) for p in parts)
        return names, _position(parts[0])

    def text(self, token: Token) -> str:
        return _unquote(token)

    def number(self, token: Token) -> int | float:
        value = float(token) if any(c in token for c in ".eE") else int(token)
        if not math.isfinite(value) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
            raise _RefusedError(_position(token), "number out of range")
        return value

    def true(self, _: Token) -> bool:
        return True

    def false(self, _: Token) -> bool:
        return False

    def word(self, token: Token) -> str:
        return str(token)

    def star(self, _: Token) -> Presence:
        return PRESENT

    def order_term(
        self, path: tuple[tuple[str, ...], int], direction: Token | None = None
    ) -> tuple[OrderTerm, int]:
        return OrderTerm(path[0], descending=direction == "desc"), path[1]

    def order(self, *terms: tuple[OrderTerm, int]) -> list[tuple[OrderTerm, int]]:
        return list(terms)


def comparisons(expression: Expression) -> list[Comparison]:
    """Return every comparison of an expression, in the order written."""
    if isinstance(expression, Comparison):
        return [expression]
    if isinstance(expression, Not):
        return comparisons(expression.term)
    return [found for term in expression.terms for found in comparisons(term)]


@functools.cache
def _parser() -> Lark:
    return Lark(
        _GRAMMAR,
        parser="lalr",
        lexer="contextual",
        start=["disjunction", "order"],
        transformer=_Builder(),
        maybe_placeholders=False,
    )


def _parse(text: str, *, start: str) -> Any:
    """Return what `_Builder` makes of a text; lark believes it to be a tree of its own."""
    return _parser().parse(text, start=start)


def _open(term: Expression | _Group) -> Expression:
    return term.expression if isinstance(term, _Group) else term


def _first(expression: Expression) -> Comparison:
    return comparisons(expression)[0]


def _position(token: Token) -> int:
    return token.start_pos or 0


def _unquote(token: Token) -> str:
    start = _position(token)

    def replace(match: re.Match[str]) -> str:
        code, character = match.groups()
        if code is not None:
            return chr(int(code, 16))
        if character not in "\"'\\":
            raise _RefusedError(start + 1 + match.start(), f"unknown escape \\{character}")
        return str(character)

    text = _ESCAPE.sub(replace, token[1:-1])
    if _CONTROL.search(text):
        raise _RefusedError(start, "control character in a string")
    return text


def _check_text(text: str, refuse: Callable[[int, str], NoReturn]) -> None:
    if len(text) > MAXIMUM_LENGTH:
        refuse(MAXIMUM_LENGTH, f"longer than {MAXIMUM_LENGTH} characters")
    if control := _CONTROL_BUT_SPACE.search(text):
        refuse(control.start(), "control character")
    depth = 0
    for match in _STRING_OR_PARENTHESIS.finditer(text):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if depth > MAXIMUM_DEPTH:
            refuse(match.start(), f"more than {MAXIMUM_DEPTH} parentheses deep")


def _explain(error: UnexpectedInput, text: str) -> tuple[int, str]:
    """Return where a syntax error is, and what was expected there."""
    if isinstance(error, UnexpectedToken):
        ended = error.token.type == "$END"
        position = len(text) if ended else _position(error.token)
        expected, found = error.expected, "end" if ended else repr(str(error.token)[:40])
    elif isinstance(error, UnexpectedCharacters):
        position, expected = error.pos_in_stream or 0, error.allowed or set()
        found = repr(text[position])
    else:
        raise error
    wanted = sorted({_NAMES[name] for name in expected})
    return position, f"unexpected {found}, expected {' or '.join(wanted)}"


def _is_allowed(path: tuple[str, ...], allowed: Collection[str]) -> bool:
    if len(path) == 1:
        return path[0] in allowed
    return f"{path[0]}.*" in allowed
