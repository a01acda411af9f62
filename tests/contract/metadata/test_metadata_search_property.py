"""Whatever is searched for, SQLite, PostgreSQL and plain Python find the same, in one order."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import ServiceError
from services.common.names import ModelName, RunName
from services.common.sql.engines import create_engine, migrate
from services.metadata.listing import Listing
from services.metadata.models.store import MODEL_GOALS, MODELS
from services.metadata.projects.store import PROJECTS
from services.metadata.runs.domain import RunDraft, started
from services.metadata.runs.search_store import SUBJECT
from services.metadata.runs.store import RUN_PARAMS, RUNS, SERIES, insert_run
from services.metadata.search_store import search
from services.metadata.values import param_columns
from services.metadata.wiring import MIGRATIONS
from tests.servers.postgres import PostgresServer

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MODEL_IDS = ("one", "two")
NUMBERS = (-math.inf, -1.5, -0.0, 0, 0.0, 1, 2**53 + 1, 2.0, math.inf)
TEXTS = ("", "a", "A", "b", "é", "É", "%", "a_b/c", "x" * 250, "x" * 249 + "y")
KEYS = ("k", "a key")
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass
class Record:
    """A run as plain Python knows it."""

    model: str
    group: str
    tags: dict[str, str]
    params: dict[str, Any]
    metrics: dict[str, list[float]]
    end: int | None
    pk: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """A filter, and which records it is true of; `goals` maps (model, metric) to a goal."""

    text: str
    holds: Callable[[Record, dict[tuple[str, str], str]], bool]
    best_of: frozenset[str] = frozenset()


Component = tuple[Any, bool]


@dataclass(frozen=True)
class Order:
    """A term of an order, and what it sorts records by."""

    text: str
    values: Callable[[Record, dict[tuple[str, str], str]], Sequence[Any]]
    descending: bool
    best_of: frozenset[str] = frozenset()


def number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def figure(record: Record, key: str, name: str, goals: dict[tuple[str, str], str]) -> float | None:
    values = record.metrics.get(key)
    if values is None:
        return None
    numbers = [value for value in values if not math.isnan(value)]
    if name == "":
        return number(values[-1])
    if name == "best":
        goal = goals.get((record.model, key))
        name = {"MAXIMIZE": "max", "MINIMIZE": "min"}.get(goal or "", "")
        if not name:
            return None
    return (max if name == "max" else min)(numbers, default=None)


def lowered(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def path(head: str, key: str, *rest: str) -> str:
    return ".".join([f"{head}[{json.dumps(key)}]", *rest])


keys = st.sampled_from(KEYS)
texts = st.sampled_from(TEXTS)
literals = st.sampled_from([n for n in NUMBERS if math.isfinite(n)])
values = st.one_of(st.sampled_from([*NUMBERS, math.nan]), texts, st.booleans(), st.just([1, "a"]))
records = st.builds(
    Record,
    model=st.sampled_from(MODEL_IDS),
    group=st.sampled_from(["", "g", "h"]),
    tags=st.dictionaries(keys, texts),
    params=st.dictionaries(keys, values),
    metrics=st.dictionaries(
        keys, st.lists(st.sampled_from([*map(float, NUMBERS), math.nan]), min_size=1, max_size=3)
    ),
    end=st.none() | st.integers(0, 3),
)
figures = st.sampled_from(["", "min", "max", "best"])


@st.composite
def metric_conditions(draw: st.DrawFn) -> Condition:
    key, name, word = draw(keys), draw(figures), draw(st.sampled_from([*OPERATORS, ":"]))
    best = frozenset({key}) if name == "best" else frozenset()
    where = path("metrics", key, *([name] if name else []))
    if word == ":":
        if not name:
            return Condition(f"{where}:*", lambda r, _: key in r.metrics)
        return Condition(f"{where}:*", lambda r, g: figure(r, key, name, g) is not None, best)
    literal, compare = draw(literals), OPERATORS[word]

    def holds(record: Record, goals: dict[tuple[str, str], str]) -> bool:
        value = figure(record, key, name, goals)
        return value is not None and compare(value, float(literal))

    return Condition(f"{where} {word} {literal!r}", holds, best)


@st.composite
def param_conditions(draw: st.DrawFn) -> Condition:
    key, kind = draw(keys), draw(st.sampled_from(["number", "text", "flag", "has", "any"]))
    where = path("params", key)
    if kind == "any":
        return Condition(f"{where}:*", lambda r, _: key in r.params)
    if kind == "number":
        word, literal = draw(st.sampled_from(list(OPERATORS))), draw(literals)

        def numeric(record: Record, _: object) -> bool:
            value = number(record.params.get(key))
            return value is not None and OPERATORS[word](value, float(literal))

        return Condition(f"{where} {word} {literal!r}", numeric)
    word = draw(st.sampled_from(["=", "!="]))
    if kind == "flag":
        flag = draw(st.booleans())

        def flagged(record: Record, _: object) -> bool:
            value = record.params.get(key)
            return isinstance(value, bool) and OPERATORS[word](value, flag)

        return Condition(f"{where} {word} {json.dumps(flag)}", flagged)
    return text_condition(where, ":" if kind == "has" else word, draw(texts), "params", key)


def text_condition(where: str, word: str, literal: str, kind: str, key: str) -> Condition:
    def holds(record: Record, _: object) -> bool:
        value = getattr(record, kind).get(key)
        if not isinstance(value, str):
            return False
        if word == ":":
            return lowered(literal) in lowered(value)
        return bool(OPERATORS[word](value, literal))

    return Condition(f"{where} {word} {json.dumps(literal, ensure_ascii=False)}", holds)


@st.composite
def tag_conditions(draw: st.DrawFn) -> Condition:
    key, word = draw(keys), draw(st.sampled_from(["=", "!=", ":"]))
    return text_condition(path("tags", key), word, draw(texts), "tags", key)


@st.composite
def group_conditions(draw: st.DrawFn) -> Condition:
    word, literal = draw(st.sampled_from(["=", "!="])), draw(st.sampled_from(["", "g"]))

    def holds(record: Record, _: object) -> bool:
        if word == "=":
            return record.group == literal
        return record.group not in ("", literal)

    return Condition(f"group {word} {json.dumps(literal)}", holds)


def joined(terms: Sequence[Condition], word: str, every: Callable[..., bool]) -> Condition:
    text = f" {word} ".join(f"({term.text})" for term in terms)
    best = frozenset[str]().union(*(term.best_of for term in terms))
    return Condition(text, lambda r, g: every(term.holds(r, g) for term in terms), best)


def negated(term: Condition) -> Condition:
    return Condition(f"NOT ({term.text})", lambda r, g: not term.holds(r, g), term.best_of)


conditions = st.recursive(
    st.one_of(metric_conditions(), param_conditions(), tag_conditions(), group_conditions()),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda t: joined(t, "AND", all)),
        st.lists(inner, min_size=2, max_size=3).map(lambda t: joined(t, "OR", any)),
        inner.map(negated),
    ),
    max_leaves=4,
)


def param_values(value: Any) -> Sequence[Any]:
    if isinstance(value, bool):
        return (2, None, None, int(value))
    if isinstance(value, str):
        return (1, None, value, None)
    found = number(value)
    return (None,) * 4 if found is None else (0, found, None, None)


@st.composite
def order_terms(draw: st.DrawFn) -> Order:
    descending = draw(st.booleans())
    end, key = " desc" if descending else "", draw(keys)
    kind = draw(st.sampled_from(["metrics", "metrics", "params", "tags", "group", "end_time"]))
    if kind == "metrics":
        name = draw(figures)
        best = frozenset({key}) if name == "best" else frozenset()
        where = path("metrics", key, *([name] if name else []))
        return Order(where + end, lambda r, g: [figure(r, key, name, g)], descending, best)
    if kind == "params":
        where = path("params", key)
        return Order(where + end, lambda r, _: param_values(r.params.get(key)), descending)
    if kind == "tags":
        return Order(path("tags", key) + end, lambda r, _: [r.tags.get(key)], descending)
    if kind == "group":
        return Order(f"group{end}", lambda r, _: [r.group or None], descending)
    return Order(f"end_time{end}", lambda r, _: [r.end], descending)


def sorted_records(
    found: list[int], records: list[Record], orders: Sequence[Order], goals: dict[Any, str]
) -> list[int]:
    def compare(first: int, second: int) -> int:
        for order in orders:
            pairs = zip(
                order.values(records[first], goals),
                order.values(records[second], goals),
                strict=True,
            )
            for a, b in pairs:
                if a == b:
                    continue
                if a is None or b is None:
                    return 1 if a is None else -1
                return (-1 if a < b else 1) * (-1 if order.descending else 1)
        descending = orders[0].descending if orders else True
        return (first - second) * (-1 if descending else 1)

    return sorted(found, key=functools.cmp_to_key(compare))


@pytest.fixture(scope="module")
def engines(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[sa.Engine]]:
    path: Path = tmp_path_factory.mktemp("search")
    with postgres_server.database() as url:
        engines = [create_engine(f"sqlite:///{path / 'runs.db'}"), create_engine(url)]
        for engine in engines:
            migrate(engine, MIGRATIONS)
        yield engines
        for engine in engines:
            engine.dispose()


def fill(connection: sa.Connection, records: list[Record], goals: dict[Any, str]) -> dict[int, int]:
    """Insert the records; return the place of each by its row."""
    text = {"display_name": "", "description": ""}
    times = {"create_time": EPOCH, "update_time": EPOCH}
    required = [c for c in PROJECTS.c if not c.nullable and c.default is None]
    defaults = {c.name: EPOCH if c.name.endswith("_time") else _zero(c) for c in required}
    connection.execute(PROJECTS.insert().values({**defaults, "project": "p"}))
    pks = {}
    for model in MODEL_IDS:
        row = MODELS.insert().values(
            project="p", model=model, last_number=0, revision=1, **text, **times
        )
        pks[model] = connection.execute(row.returning(MODELS.c.pk)).scalar_one()
    for (model, key), goal in goals.items():
        connection.execute(MODEL_GOALS.insert().values(model_pk=pks[model], key=key, goal=goal))
    places = {}
    for place, record in enumerate(records):
        draft = RunDraft(display_name="", tags=record.tags, build="", group=record.group)
        model_pk = pks[record.model]
        name = RunName("p", record.model, f"r{place}")
        pk = insert_run(connection, started(name, draft, creator="u", now=EPOCH))
        assert pk is not None
        places[pk] = place
        if record.end is not None:
            end = EPOCH + timedelta(seconds=record.end)
            connection.execute(RUNS.update().where(RUNS.c.pk == pk).values(end_time=end))
        owner = {"run_pk": pk, "model_pk": model_pk}
        for key, value in record.params.items():
            row = RUN_PARAMS.insert().values(**owner, key=key, **param_columns(value))
            connection.execute(row)
        for key, found in record.metrics.items():
            connection.execute(SERIES.insert().values(**owner, key=key, **_series(found)))
    return places


def _series(found: list[float]) -> dict[str, Any]:
    numbers = [value for value in found if not math.isnan(value)]
    return {
        "count": len(found),
        "last": found[-1],
        "last_step": 0,
        "last_rank": number(found[-1]),
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
    }


def _zero(column: sa.Column[Any]) -> Any:
    return b"\x90" if column.type.python_type is bytes else column.type.python_type()


def read_all(
    connection: sa.Connection, parent: ModelName, listing: Listing, selective: int
) -> list[int]:
    """Return a search's rows, read page by page."""
    found: list[int] = []
    while True:
        pks, token = search(connection, SUBJECT, parent, listing, seconds=30, selective=selective)
        found += pks
        if not token:
            return found
        listing = Listing(listing.size, token, listing.filter, listing.order)


@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    records=st.lists(records, max_size=10),
    condition=st.none() | conditions,
    orders=st.lists(order_terms(), max_size=3, unique_by=lambda o: o.text.removesuffix(" desc")),
    goals=st.dictionaries(
        st.tuples(st.sampled_from(MODEL_IDS), keys), st.sampled_from(["MAXIMIZE", "MINIMIZE"])
    ),
    scope=st.sampled_from([*MODEL_IDS, "-"]),
    size=st.sampled_from([1, 3, 20]),
    selective=st.sampled_from([-1, 2, 2000]),
)
def test_all_find_the_same(  # noqa: PLR0917 - drawn by name
    engines: list[sa.Engine],
    records: list[Record],
    condition: Condition | None,
    orders: list[Order],
    goals: dict[tuple[str, str], str],
    scope: str,
    size: int,
    selective: int,
) -> None:
    models = MODEL_IDS if scope == "-" else (scope,)
    asked = [order.best_of for order in orders] + ([condition.best_of] if condition else [])
    lacking = any(
        not any((model, key) in goals for model in models) for keys in asked for key in keys
    )
    wanted = [
        place
        for place, record in enumerate(records)
        if record.model in models and (condition is None or condition.holds(record, goals))
    ]
    wanted = sorted_records(wanted, records, orders, goals)
    listing = Listing(
        size, "", condition.text if condition else "", ", ".join(order.text for order in orders)
    )
    for engine in engines:
        with engine.connect() as connection, connection.begin() as transaction:
            places = fill(connection, records, goals)
            if lacking:
                with pytest.raises(ServiceError, match="metric goal"):
                    read_all(connection, ModelName("p", scope), listing, selective)
            else:
                found = read_all(connection, ModelName("p", scope), listing, selective)
                assert [places[pk] for pk in found] == wanted, engine.dialect.name
            transaction.rollback()
