"""What searches of runs and of versions can ask for: fields to filter, to sort and to look up by.

A field compiles comparisons; it may also be sorted by, and it may know a query that
an index answers with the rows that meet a comparison.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.errors import Reason, ServiceError
from services.common.listing.filter_syntax import PRESENT
from services.common.listing.filtering import (
    FieldCompiler,
    FilterProblemError,
    Literal,
    Operator,
    compare,
    flag_field,
    map_field,
    number_field,
    optional_text_field,
    text_field,
    timestamp_field,
    typed_field,
)
from services.metadata.models.domain import MetricGoal
from services.metadata.models.store import MODEL_GOALS, MODELS
from services.metadata.schema import INDEXED, INFINITY, Sort, by_time, text_start

Path = tuple[str, ...]
SARGABLE = frozenset(Operator) - {Operator.NOT_EQUAL, Operator.HAS}
REMEMBERED = 256
"""So many orders are remembered: the database's tools are slow to make them."""
FIGURES = {"": "last_rank", "min": "min", "max": "max"}


@dataclass(frozen=True, slots=True)
class Scope:
    """The models that are looked into: their rows, or None for all of a project's many."""

    project: str
    pks: tuple[int, ...] | None

    def covers(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """Say that a column names one of the models."""
        if self.pks is None:
            kept = sa.and_(MODELS.c.project == self.project, MODELS.c.delete_time.is_(None))
            return column.in_(sa.select(MODELS.c.pk).where(kept))
        return column == self.pks[0] if len(self.pks) == 1 else column.in_(self.pks)


@dataclass(frozen=True, slots=True, eq=False)
class Ordering:
    """What one term of an order sorts by, and the table that must be joined for it, if any.

    `metric` is set when the index of a metric's figure is in this order: its key and column.
    """

    sorts: tuple[Sort, ...]
    table: sa.FromClause | None = None
    on: sa.ColumnElement[bool] | None = None
    metric: tuple[str, sa.Column[Any]] | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a search; paths are what follows its name."""

    compile: FieldCompiler
    order: Callable[[Path, bool], Ordering] | None = None
    probe: Callable[[Scope, Path, Operator, Literal], sa.Select[Any] | None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is searched: its table, what names it in maps, and its fields but `metrics`."""

    word: str
    table: sa.Table
    owner: str
    metrics: sa.Table
    fields: Mapping[str, Field]
    shown: Callable[[bool], Sequence[sa.ColumnElement[bool]]]
    """What holds of rows that are listed, deleted ones too or not."""


def plain(
    value: sa.ColumnElement[Any], kind: type, *, nullable: bool = True
) -> Callable[[Path, bool], Ordering]:
    """Make the order of a plain value."""

    def order(path: Path, descending: bool) -> Ordering:
        return Ordering((Sort(value, kind, descending, nullable),))

    return order


def compare_text(
    column: sa.ColumnElement[Any], operator: Operator, literal: str | None
) -> sa.ColumnElement[bool]:
    """Compare a text that sorts as it should; one that is null compares as nothing."""
    compared: sa.ColumnElement[bool] = compare(column, operator, literal)
    return sa.and_(column.is_not(None), compared)


def text(column: sa.Column[Any], *, indexed: bool = False) -> Field:
    """Make a field of a text that may be empty: that is no value."""
    return Field(
        optional_text_field(column),
        plain(sa.func.nullif(column, ""), str),
        _column_probe(column) if indexed else None,
    )


def state(column: sa.Column[Any], compiler: FieldCompiler) -> Field:
    """Make a field of a word that is always there."""
    return Field(compiler, plain(column, str))


def whole_number(column: sa.Column[Any], compiler: FieldCompiler | None = None) -> Field:
    """Make a field of an integer that is always there."""
    return Field(compiler or number_field(column), plain(column, int, nullable=False))


def moment(column: sa.Column[Any]) -> Field:
    """Make a field of a time."""

    def order(path: Path, descending: bool) -> Ordering:
        nullable = bool(column.nullable)
        return Ordering((by_time(column, descending=descending, nullable=nullable),))

    return Field(timestamp_field(column), order)


def tags(table: sa.Table, owner: str, pk: sa.Column[Any]) -> Field:
    """Make a field of a map of texts."""
    compiler = map_field(table.c[owner] == pk, key=table.c.key, values=text_field(table.c.value))

    @functools.lru_cache(REMEMBERED)
    def order(path: Path, descending: bool) -> Ordering:
        found = table.alias()
        sort = Sort(found.c.value, str, descending)
        return Ordering((sort,), found, _of(found, owner, pk, path[0]))

    def probe(
        scope: Scope, path: Path, operator: Operator, literal: Literal
    ) -> sa.Select[Any] | None:
        if len(path) != 1 or operator is not Operator.EQUAL or "model_pk" not in table.c:
            return None
        value = text_field(table.c.value)((), operator, literal)
        return _entries(table, owner, scope, path[0], value)

    return Field(compiler, order, probe)


def params(table: sa.Table, owner: str, pk: sa.Column[Any]) -> Field:
    """Make a field of parameters: numbers sort by value, then texts, then false and true."""
    columns = table.c
    start = text_start(columns.text_value)

    def compile_text(path: Path, operator: Operator, literal: Literal) -> sa.ColumnElement[bool]:
        whole = columns.text_value
        if operator is not Operator.EQUAL or not isinstance(literal, str):
            return text_field(whole)(path, operator, literal)
        clause = sa.and_(whole.is_not(None), start == literal[:INDEXED])
        if len(literal) < INDEXED:
            return clause
        # As a range: SQLite would put what a column equals into the index's expression.
        return sa.and_(clause, whole >= literal, whole <= literal)

    values = typed_field(
        text=compile_text,
        number=number_field(columns.number_value),
        flag=flag_field(columns.flag_value),
    )

    @functools.lru_cache(REMEMBERED)
    def order(path: Path, descending: bool) -> Ordering:
        found = table.alias()
        sorts = _param_sorts(found.c, descending=descending)
        return Ordering(sorts, found, _of(found, owner, pk, path[0]))

    def probe(
        scope: Scope, path: Path, operator: Operator, literal: Literal
    ) -> sa.Select[Any] | None:
        if len(path) != 1 or operator not in SARGABLE or isinstance(literal, bool):
            return None
        return _entries(table, owner, scope, path[0], values((), operator, literal))

    compiler = map_field(columns[owner] == pk, key=columns.key, values=values)
    return Field(compiler, order, probe)


def metrics(connection: Connection, subject: Subject, scope: Scope) -> Field:
    """Make the field of metrics, whose best depends on the models' goals."""
    table, owner, pk = subject.metrics, subject.owner, subject.table.c.pk

    def figure(path: Path, source: Any) -> Any:
        rest = path[1:]
        if rest == ("best",):
            return _best(connection, scope, path[0], source)
        if len(rest) > 1 or "".join(rest) not in FIGURES:
            raise FilterProblemError("after a metric comes best, max, min; quote keys with dots")
        return source[FIGURES["".join(rest)]]

    def compile_metric(path: Path, operator: Operator, literal: Literal) -> sa.ColumnElement[bool]:
        owned = table.c[owner] == pk
        if not path:
            return map_field(owned, key=table.c.key, values=number_field(table.c.last_rank))(
                path, operator, literal
            )
        column = figure(path, table.c)
        if literal is PRESENT and len(path) > 1:
            entry = sa.exists().where(owned, table.c.key == path[0], column.is_not(None))
            return entry.correlate_except(table)
        value = number_field(column)
        return map_field(owned, key=table.c.key, values=value)(path[:1], operator, literal)

    def order(path: Path, descending: bool) -> Ordering:
        figure(path, table.c)  # is there such a figure
        if path[1:] != ("best",):
            return _figure_order(subject, path[0], FIGURES["".join(path[1:])], descending)
        indexed = figure(path, table.c)
        if isinstance(indexed, sa.Column):
            return _figure_order(subject, path[0], indexed.name, descending)
        found = table.alias()
        value: sa.ColumnElement[Any] = sa.type_coerce(figure(path, found.c), sa.Double())
        return Ordering((Sort(value, float, descending),), found, _of(found, owner, pk, path[0]))

    def probe(
        scope: Scope, path: Path, operator: Operator, literal: Literal
    ) -> sa.Select[Any] | None:
        if not path or operator not in SARGABLE:
            return None
        column = figure(path, table.c)
        if not isinstance(column, sa.Column):
            return None
        return _entries(table, owner, scope, path[0], number_field(column)((), operator, literal))

    return Field(compile_metric, order, probe)


@functools.lru_cache(REMEMBERED)
def _figure_order(subject: Subject, key: str, figure: str, descending: bool) -> Ordering:
    found = subject.metrics.alias()
    sort = Sort(sa.type_coerce(found.c[figure], sa.Double()), float, descending)
    on = _of(found, subject.owner, subject.table.c.pk, key)
    return Ordering((sort,), found, on, (key, subject.metrics.c[figure]))


def _best(connection: Connection, scope: Scope, key: str, source: Any) -> Any:
    """Return a metric's best as its goals say; a model without one has no best."""
    query = sa.select(MODEL_GOALS.c.model_pk, MODEL_GOALS.c.goal).where(
        scope.covers(MODEL_GOALS.c.model_pk), MODEL_GOALS.c.key == key
    )
    goals = {row.model_pk: MetricGoal(row.goal) for row in connection.execute(query)}
    if not goals:
        message = f"no model here says which values of {key} are better; set its metric goal"
        raise ServiceError(Reason.GOAL_MISSING, message, key=key)
    columns = {MetricGoal.MAXIMIZE: source["max"], MetricGoal.MINIMIZE: source["min"]}
    if scope.pks is not None and goals.keys() >= set(scope.pks) and len({*goals.values()}) == 1:
        return columns[next(iter(goals.values()))]
    cases = []
    for goal, column in columns.items():
        models = [pk for pk, found in goals.items() if found is goal]
        if models:
            cases.append((source.model_pk.in_(models), column))
    return sa.case(*cases)


def _column_probe(column: sa.Column[Any]) -> Any:
    def probe(
        scope: Scope, path: Path, operator: Operator, literal: Literal
    ) -> sa.Select[Any] | None:
        if path or operator is not Operator.EQUAL or not isinstance(literal, str) or not literal:
            return None
        # The second says again what the first says, in the words of a partial index.
        some = column != sa.literal_column("''")
        owned = scope.covers(column.table.c.model_pk)
        return sa.select(column.table.c.pk).where(owned, column == literal, some)

    return probe


def _param_sorts(columns: Any, *, descending: bool) -> tuple[Sort, ...]:
    number = sa.case((columns.number_value <= INFINITY, columns.number_value), else_=None)
    flag = sa.case((columns.flag_value.is_(sa.true()), 1), (columns.flag_value.is_(sa.false()), 0))
    kind = sa.case(
        (number.is_not(None), 0),
        (columns.text_value.is_not(None), 1),
        (columns.flag_value.is_not(None), 2),
    )
    return (
        Sort(kind, int, descending),
        Sort(sa.type_coerce(number, sa.Double()), float, descending),
        Sort(columns.text_value, str, descending),
        Sort(flag, int, descending),
    )


def _of(found: Any, owner: str, pk: sa.Column[Any], key: str) -> sa.ColumnElement[bool]:
    return sa.and_(found.c[owner] == pk, found.c.key == key)


def _entries(
    table: sa.Table, owner: str, scope: Scope, key: str, clause: sa.ColumnElement[bool]
) -> sa.Select[Any]:
    owned = scope.covers(table.c.model_pk)
    return sa.select(table.c[owner]).where(owned, table.c.key == key, clause)


def names(fields: Collection[str], unsorted: Collection[str]) -> list[str]:
    """Return what an order may name: maps as `tags.*`."""
    maps = {"tags", "labels", "params", "metrics"}
    return [f"{name}.*" if name in maps else name for name in fields if name not in unsorted]
