"""How runs and versions are searched: one engine over both, quick by a plan of its own.

Databases plan such searches badly: SQLite keeps no statistics, PostgreSQL's know
nothing of keys in maps. So the plan is made here, alike for both. A condition that
an index serves is tried first: if few rows meet it, those are looked at and no
others. Else a search ordered by one metric walks that metric's index and stops when
the page is full; what lacks the metric comes after, from a second query. All else is
an ordinary query. Only keys are sorted; the rows of the page are read afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.errors import Reason, ServiceError
from services.common.listing import pagination
from services.common.listing.filter_syntax import (
    And,
    Comparison,
    Expression,
    FilterProblemError,
    OrderTerm,
    parse_filter,
    parse_order,
)
from services.common.listing.filtering import compile_filter, number_field
from services.common.names import WILDCARD, ModelName
from services.common.sql.driver_sql import driver_sql
from services.common.sql.query_time import bounded
from services.metadata.listing import Listing
from services.metadata.schema import Sort, after, in_pks, order_of, shape
from services.metadata.search_schema import (
    FIGURES,
    SARGABLE,
    Field,
    Ordering,
    Scope,
    Subject,
    metrics,
    names,
)

SELECTIVE = 2_000
"""So many rows are few: they are looked at one by one."""
MERGED = 16
"""So many models' indexes are walked side by side; of more, all rows are sorted."""

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Search:
    """One search, understood; `key` is where the page before ended."""

    connection: Connection
    subject: Subject
    scope: Scope
    fields: Mapping[str, Field]
    terms: tuple[Expression, ...]
    clauses: tuple[sa.ColumnElement[bool], ...]
    orderings: tuple[Ordering, ...]
    sorts: tuple[Sort, ...]
    size: int
    selective: int
    key: Row | None

    @property
    def pk(self) -> sa.Column[Any]:
        """Return the column of row ids."""
        return self.subject.table.c.pk


def search(
    connection: Connection,
    subject: Subject,
    parent: ModelName,
    listing: Listing,
    *,
    seconds: float,
    selective: int = SELECTIVE,
) -> tuple[list[int], str]:
    """Return the rows of a page, in order, and the next page's token.

    Args:
        connection: where to read.
        subject: what to search.
        parent: the model whose it must be; `-` for all of the project.
        listing: which page of what, in which order.
        seconds: how long it may take.
        selective: so many rows are few enough to be looked at one by one.

    Raises:
        ServiceError: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE_TOKEN, GOAL_MISSING;
            LIMIT_EXCEEDED when it takes longer than `seconds`.
    """
    scope = _scope(connection, parent)
    fields = {**subject.fields, "metrics": metrics(connection, subject, scope)}
    expression = parse_filter(listing.filter)
    terms = _conjuncts(expression)
    compilers = {name: field.compile for name, field in fields.items()}
    orderings = _orderings(fields, listing.order)
    sorts = [sort for ordering in orderings for sort in ordering.sorts]
    descending = sorts[0].descending if sorts else True
    sorts.append(Sort(subject.table.c.pk, int, descending, nullable=False))
    text = f"{subject.word}\n{parent}\n{listing.show_deleted}\n{listing.filter}\n{listing.order}"
    found = _Search(
        connection=connection,
        subject=subject,
        scope=scope,
        fields=fields,
        terms=terms,
        clauses=tuple(compile_filter(term, compilers) for term in terms),
        orderings=orderings,
        sorts=tuple(sorts),
        size=listing.size + 1,
        selective=selective,
        key=pagination.decode_token(listing.token, text, shape(sorts)),
    )
    if scope.pks == ():
        return [], ""
    rows = _rows(found, subject.shown(listing.show_deleted), seconds)
    pks = [row[-1] for row in rows[: listing.size]]
    if len(rows) <= listing.size:
        return pks, ""
    return pks, pagination.encode_token(text, rows[listing.size - 1])


def _bounded(found: _Search, seconds: float) -> AbstractContextManager[None]:
    """Bound the time; what an index surely answers quickly is not worth the asking."""
    is_plain = not found.orderings or (len(found.orderings) == 1 and found.orderings[0].metric)
    if is_plain and not found.terms:
        return nullcontext()
    return bounded(found.connection, seconds)


def _scope(connection: Connection, parent: ModelName) -> Scope:
    sql, given = "SELECT pk FROM models WHERE project = ?", [parent.project]
    if parent.model != WILDCARD:
        sql, given = sql + " AND model = ?", [parent.project, parent.model]
    else:
        sql += " AND delete_time IS NULL"
    rows = driver_sql(connection, f"{sql} LIMIT {MERGED + 1}", tuple(given))
    pks = tuple(pk for (pk,) in rows)
    return Scope(parent.project, pks if len(pks) <= MERGED else None)


def _conjuncts(expression: Expression | None) -> tuple[Expression, ...]:
    if expression is None:
        return ()
    if isinstance(expression, And):
        return tuple(one for term in expression.terms for one in _conjuncts(term))
    return (expression,)


def _orderings(fields: Mapping[str, Field], text: str) -> tuple[Ordering, ...]:
    unsorted = [name for name, field in fields.items() if field.order is None]
    terms = parse_order(text, names(fields, unsorted))
    # Two terms may be one, such as a metric's greatest and its best.
    return tuple(dict.fromkeys(_ordering(fields, term) for term in terms))


def _ordering(fields: Mapping[str, Field], term: OrderTerm) -> Ordering:
    name, *rest = term.path
    order = fields[name].order
    path = ".".join(term.path)[:200]
    try:
        if order is None or (name != "metrics" and len(rest) > 1):
            raise FilterProblemError("has nothing below it; quote keys that hold dots")
        return order(tuple(rest), term.descending)
    except FilterProblemError as error:
        message = f"order_by is wrong: {path}: {error}"
        raise ServiceError(Reason.INVALID_ORDER, message, order_by=path) from error


def _rows(found: _Search, shown: Sequence[sa.ColumnElement[bool]], seconds: float) -> list[Row]:
    """Return the sort values, the row id last, of a page and of one row more."""
    candidates, place = _candidates(found)
    if candidates is not None:
        # Few rows, each found by its key: they need no bound, and PostgreSQL is asked for none.
        kept = [clause for index, clause in enumerate(found.clauses) if index != place]
        return _sorted(found, [*shown, *kept, in_pks(found.connection, found.pk, candidates)])
    metric = found.orderings[0].metric if len(found.orderings) == 1 else None
    with _bounded(found, seconds):
        if metric is not None and found.scope.pks is not None:
            return _merged(found, [_walk(found, pk, shown, metric) for pk in found.scope.pks])
        return _sorted(found, [*shown, *found.clauses])


def _candidates(found: _Search) -> tuple[list[int] | None, int | None]:
    """Return the fewest rows that an index says meet a condition, if they are few, and which."""
    best: list[int] | None = None
    place: int | None = None
    for index, term in enumerate(found.terms):
        query = _probe(found, term)
        if query is None:
            continue
        some = list(found.connection.execute(query.limit(found.selective + 1)).scalars())
        if len(some) <= found.selective and (best is None or len(some) < len(best)):
            best, place = some, index
        if best is not None and len(best) <= found.size:
            break
    return best, place


def _probe(found: _Search, term: Expression) -> sa.Select[Any] | None:
    if not isinstance(term, Comparison):
        return None
    name, *path = term.path
    probe = found.fields[name].probe
    if probe is None:
        return None
    return probe(found.scope, tuple(path), term.operator, term.literal)


def _sorted(found: _Search, clauses: Sequence[sa.ColumnElement[bool]]) -> list[Row]:
    """Sort all rows that meet the clauses, and are of the models, by their values."""
    source: Any = found.subject.table
    for ordering in found.orderings:
        if ordering.table is not None:
            source = source.outerjoin(ordering.table, ordering.on)
    query = sa.select(*(sort.value for sort in found.sorts)).select_from(source)
    query = query.where(found.scope.covers(found.subject.table.c.model_pk), *clauses)
    if found.key is not None:
        query = query.where(after(found.sorts, found.key))
    query = query.order_by(*order_of(found.sorts)).limit(found.size)
    return [tuple(row) for row in found.connection.execute(query)]


def _walk(
    found: _Search,
    model_pk: int,
    shown: Sequence[sa.ColumnElement[bool]],
    metric: tuple[str, sa.Column[Any]],
) -> list[Row]:
    """Walk a metric's index of one model until the page is full, then what lacks the metric."""
    key, figure = metric
    table, owner = found.subject.metrics, found.subject.metrics.c[found.subject.owner]
    descending = found.sorts[0].descending
    bounds, rest = _bounds(found, key, figure)
    measured = sa.and_(table.c.key == key, figure.is_not(None))
    rows: list[Row] = []
    if found.key is None or found.key[0] is not None:
        value: sa.ColumnElement[Any] = sa.type_coerce(figure, sa.Double())
        sorts = (
            Sort(value, float, descending, nullable=False),
            Sort(owner, int, descending, nullable=False),
        )
        query = sa.select(value, owner).join_from(table, found.subject.table, owner == found.pk)
        query = query.where(table.c.model_pk == model_pk, measured, *shown, *bounds, *rest)
        if found.key is not None:
            query = query.where(after(sorts, found.key))
        query = query.order_by(*order_of(sorts)).limit(found.size)
        rows = [tuple(row) for row in found.connection.execute(query)]
    if len(rows) < found.size and not bounds:
        lacking = ~sa.exists().where(owner == found.pk, measured).correlate_except(table)
        rows += _unmeasured(found, model_pk, [lacking, *shown, *rest])
    return rows[: found.size]


def _unmeasured(
    found: _Search, model_pk: int, clauses: Sequence[sa.ColumnElement[bool]]
) -> list[Row]:
    """Return the rows of a model that lack the metric."""
    query = sa.select(found.pk).where(found.subject.table.c.model_pk == model_pk, *clauses)
    sort = found.sorts[-1]
    if found.key is not None and found.key[0] is None:
        query = query.where(after([sort], found.key[-1:]))
    query = query.order_by(*order_of([sort])).limit(found.size)
    return [(None, pk) for pk in found.connection.execute(query).scalars()]


def _bounds(
    found: _Search, key: str, figure: sa.Column[Any]
) -> tuple[list[sa.ColumnElement[bool]], list[sa.ColumnElement[bool]]]:
    """Return the conditions on the very figure that is walked, which bound the walk, and others."""
    bounds, rest = [], []
    for term, clause in zip(found.terms, found.clauses, strict=True):
        if (
            isinstance(term, Comparison)
            and term.path[:2] == ("metrics", key)
            and FIGURES.get(".".join(term.path[2:])) == figure.name
            and term.operator in SARGABLE
        ):
            bounds.append(number_field(figure)((), term.operator, term.literal))
        else:
            rest.append(clause)
    return bounds, rest


def _merged(found: _Search, walks: Sequence[list[Row]]) -> list[Row]:
    """Merge pages of several models into one."""
    if len(walks) == 1:
        return walks[0]
    sign = -1 if found.sorts[0].descending else 1

    def rank(row: Row) -> tuple[bool, float, int]:
        value, pk = row
        return value is None, 0.0 if value is None else sign * value, sign * pk

    return sorted((row for walk in walks for row in walk), key=rank)[: found.size]
