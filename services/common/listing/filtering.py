"""Filters as SQL: each List compiles the fields it documents, and no others.

A `FieldCompiler` turns one comparison of a field into a clause. Every clause is
two-valued: what has no value matches nothing, `!=` included, and everything under
NOT. Values reach the database as bound parameters only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from services.common.listing.filter_syntax import (
    PRESENT,
    And,
    Comparison,
    Expression,
    FilterProblemError,
    Literal,
    Not,
    Operator,
    OrderTerm,
    Presence,
    parse_filter,
    parse_order,
    refuse_filter,
)
from services.common.sql.database import Double

__all__ = [
    "Expression",
    "FieldCompiler",
    "FilterProblemError",
    "Literal",
    "Operator",
    "OrderTerm",
    "compare",
    "compile_filter",
    "enum_field",
    "flag_field",
    "map_field",
    "number_field",
    "optional_text_field",
    "parse_filter",
    "parse_order",
    "text_field",
    "timestamp_field",
    "typed_field",
]

Path = tuple[str, ...]
Clause = sa.ColumnElement[bool]
FieldCompiler = Callable[[Path, Operator, Literal], Clause]

_COMPARE: Mapping[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: lambda column, value: column == value,
    Operator.NOT_EQUAL: lambda column, value: column != value,
    Operator.LESS: lambda column, value: column < value,
    Operator.LESS_OR_EQUAL: lambda column, value: column <= value,
    Operator.GREATER: lambda column, value: column > value,
    Operator.GREATER_OR_EQUAL: lambda column, value: column >= value,
}
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def compile_filter(expression: Expression, fields: Mapping[str, FieldCompiler]) -> Clause:
    """Return the WHERE clause of a filter over the given fields.

    Raises:
        ServiceError: INVALID_FILTER for an unknown field or a comparison its field cannot make.
    """
    if isinstance(expression, Comparison):
        return _compile_comparison(expression, fields)
    if isinstance(expression, Not):
        return sa.not_(compile_filter(expression.term, fields))
    join = sa.and_ if isinstance(expression, And) else sa.or_
    return join(*(compile_filter(term, fields) for term in expression.terms))


def text_field(column: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare a text column: `=`, `!=`, and `:` for "contains", whatever the case."""

    def compile_text(path: Path, operator: Operator, literal: Literal) -> Clause:
        _refuse_path(path)
        if literal is PRESENT:
            return column.is_not(None)
        if not isinstance(literal, str):
            raise FilterProblemError("wants a quoted string")
        if operator is Operator.HAS:
            return _known(column, _contains(column, literal))
        if operator not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            raise FilterProblemError("text is compared with = != and :")
        return _known(column, _COMPARE[operator](column, literal))

    return compile_text


def optional_text_field(column: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare a text column in which "" is no value; `= ""` finds what has none."""
    compile_text = text_field(column)
    present = column != ""

    def compile_optional(path: Path, operator: Operator, literal: Literal) -> Clause:
        if literal is PRESENT:
            return present
        clause = compile_text(path, operator, literal)
        return clause if operator is Operator.EQUAL else sa.and_(present, clause)

    return compile_optional


def number_field(column: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare a column of integers or doubles by value; NaN is no value."""

    def compile_number(path: Path, operator: Operator, literal: Literal) -> Clause:
        _refuse_path(path)
        if literal is PRESENT:
            return column.is_not(None)
        if isinstance(literal, bool) or not isinstance(literal, int | float):
            raise FilterProblemError("wants a number")
        # An integer meets a double as a double: databases differ in how they mix them.
        whole = isinstance(literal, int) and not isinstance(column.type, sa.Double | Double)
        literal = literal if whole else float(literal)
        value = sa.literal(literal, sa.BigInteger()) if whole else sa.literal(literal, sa.Double())
        clause = compare(column, operator, value)
        if operator in {Operator.GREATER, Operator.GREATER_OR_EQUAL, Operator.NOT_EQUAL}:
            # PostgreSQL sorts NaN above every number, SQLite keeps it as text, which it sorts so.
            clause = sa.and_(clause, column <= sa.literal(float("inf"), sa.Double()))
        return _known(column, clause)

    return compile_number


def timestamp_field(column: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare a `Timestamp` column with an RFC 3339 string."""

    def compile_timestamp(path: Path, operator: Operator, literal: Literal) -> Clause:
        _refuse_path(path)
        if literal is PRESENT:
            return column.is_not(None)
        return _known(column, compare(column, operator, _parse_timestamp(literal)))

    return compile_timestamp


def enum_field(column: sa.ColumnElement[Any], allowed: Collection[str]) -> FieldCompiler:
    """Compare a column of states with `=` and `!=`; a word that is no state is refused."""

    def compile_enum(path: Path, operator: Operator, literal: Literal) -> Clause:
        _refuse_path(path)
        if literal is PRESENT:
            return column.is_not(None)
        if not isinstance(literal, str) or literal not in allowed:
            raise FilterProblemError(f"wants one of {', '.join(sorted(allowed))}")
        if operator not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            raise FilterProblemError("a state is compared with = and !=")
        return _known(column, _COMPARE[operator](column, str(literal)))

    return compile_enum


def flag_field(column: sa.ColumnElement[Any]) -> FieldCompiler:
    """Compare a boolean column or expression with `true` and `false`."""

    def compile_flag(path: Path, operator: Operator, literal: Literal) -> Clause:
        _refuse_path(path)
        if literal is PRESENT:
            return column.is_not(None)
        if not isinstance(literal, bool):
            raise FilterProblemError("wants true or false")
        if operator not in {Operator.EQUAL, Operator.NOT_EQUAL}:
            raise FilterProblemError("true and false are compared with = and !=")
        wanted = literal is (operator is Operator.EQUAL)
        return _known(column, column.is_(sa.true()) if wanted else column.is_(sa.false()))

    return compile_flag


def typed_field(
    *, text: FieldCompiler, number: FieldCompiler, flag: FieldCompiler | None = None
) -> FieldCompiler:
    """Compare a value of varying type: the literal's type picks the column."""

    def compile_typed(path: Path, operator: Operator, literal: Literal) -> Clause:
        if isinstance(literal, Presence):
            present = [field(path, operator, literal) for field in (text, number, flag) if field]
            return sa.or_(*present)
        if isinstance(literal, bool):
            if flag is None:
                raise FilterProblemError("wants a quoted string or a number")
            return flag(path, operator, literal)
        return (text if isinstance(literal, str) else number)(path, operator, literal)

    return compile_typed


def map_field(
    owned: Clause,
    *,
    key: sa.ColumnElement[str],
    values: Mapping[str, FieldCompiler] | FieldCompiler,
) -> FieldCompiler:
    """Compare entries of a map kept in a table of (owner, key, value) rows.

    Args:
        owned: what ties a row to its owner, such as `tags.c.run == runs.c.id`.
        key: the column of keys.
        values: the compiler of the value; or one for each word after the key, as in
            `metrics.f1.max`, with `""` for none.
    """
    compilers = values if isinstance(values, Mapping) else {"": values}
    table = key.table if isinstance(key, sa.Column) else None

    def entry(*clauses: Clause) -> Clause:
        found = sa.exists().where(owned, *clauses)
        return found if table is None else found.correlate_except(table)

    def compile_map(path: Path, operator: Operator, literal: Literal) -> Clause:
        if not path:
            return compile_key(operator, literal)
        attribute = ".".join(path[1:])
        if attribute not in compilers:
            known = ", ".join(sorted(filter(None, compilers))) or "nothing"
            raise FilterProblemError(f"after a key comes {known}; quote keys that hold dots")
        if literal is PRESENT and not attribute:
            return entry(key == path[0])
        return entry(key == path[0], compilers[attribute]((), operator, literal))

    def compile_key(operator: Operator, literal: Literal) -> Clause:
        if operator is not Operator.HAS or isinstance(literal, bool):
            raise FilterProblemError('wants a key: name.key or name["a key"]')
        return entry() if literal is PRESENT else entry(key == str(literal))

    return compile_map


def _compile_comparison(comparison: Comparison, fields: Mapping[str, FieldCompiler]) -> Clause:
    name, *rest = comparison.path
    if name not in fields:
        problem = f"unknown field {name}; known are {', '.join(sorted(fields))}"
        refuse_filter(comparison.position, problem)
    try:
        return fields[name](tuple(rest), comparison.operator, comparison.literal)
    except FilterProblemError as error:
        refuse_filter(comparison.position, f"{'.'.join(comparison.path)}: {error}")


def compare(column: sa.ColumnElement[Any], operator: Operator, value: Any) -> Clause:
    """Compare a column with a value by any operator but `:`."""
    if operator is Operator.HAS:
        raise FilterProblemError("':' is for text and maps, or ':*'")
    clause: Clause = _COMPARE[operator](column, value)
    return clause


def _contains(column: sa.ColumnElement[Any], text: str) -> Clause:
    """Say that a text contains another, whatever the case of its Latin letters."""
    escaped = re.sub(r"[/%_]", r"/\g<0>", text)
    pattern = "%" + "".join(c.lower() if c.isascii() else c for c in escaped) + "%"
    clause: Clause = sa.func.lower(column).like(pattern, escape="/")
    return clause


def _known(column: sa.ColumnElement[Any], clause: Clause) -> Clause:
    """Keep a clause two-valued, so that NOT of it is what people expect."""
    return sa.and_(column.is_not(None), clause)


def _refuse_path(path: Path) -> None:
    if path:
        raise FilterProblemError("has nothing below it")


def _parse_timestamp(literal: Literal) -> datetime:
    problem = 'wants a time such as "2026-01-31T12:00:00Z"'
    if not isinstance(literal, str) or not _RFC3339.fullmatch(literal):
        raise FilterProblemError(problem)
    try:
        return datetime.fromisoformat(literal.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FilterProblemError(problem) from error
