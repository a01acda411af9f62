"""Tables and queries of models, and of what hangs on a model."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.errors import wrong_state
from services.common.listing.filtering import (
    FieldCompiler,
    compile_filter,
    map_field,
    parse_filter,
    parse_order,
    text_field,
    timestamp_field,
)
from services.common.names import ModelName, ProjectName
from services.common.sql.database import Double, Timestamp
from services.common.sql.driver_sql import driver_sql
from services.metadata.listing import Listing, Page
from services.metadata.models.domain import MetricGoal, Model, ModelDraft
from services.metadata.projects.store import hold_project
from services.metadata.schema import (
    METADATA,
    BinaryText,
    Sort,
    by_time,
    fetch_page,
    index_params,
    insert_new,
    param_values,
    reference,
    row_id,
)

MODELS = sa.Table(
    "models",
    METADATA,
    row_id(),
    sa.Column("project", sa.Text, sa.ForeignKey("projects.project"), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    # The newest number allotted; it only rises, so none is used twice.
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    sa.Column("delete_time", Timestamp),
    # Set while it is removed bit by bit: the id that it had, and who purged it. Its own is
    # then one that no model can have.
    sa.Column("removed_id", sa.Text),
    sa.Column("purger", sa.Text),
    sa.UniqueConstraint("project", "model"),
)
_REMOVED = MODELS.c.removed_id.is_not(None)
sa.Index("models_removed", MODELS.c.pk, sqlite_where=_REMOVED, postgresql_where=_REMOVED)
# Of models that are gone: a new one of that name goes on numbering from there.
USED_NUMBERS = sa.Table(
    "used_numbers",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("last_number", sa.BigInteger, nullable=False),
)
MODEL_LABELS = sa.Table(
    "model_labels",
    METADATA,
    reference("model_pk", "models.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
MODEL_GOALS = sa.Table(
    "model_goals",
    METADATA,
    reference("model_pk", "models.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("goal", sa.Text, nullable=False),
)
VERSIONS = sa.Table(
    "versions",
    METADATA,
    row_id(),
    reference("model_pk", "models.pk"),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failure_reason", sa.Text),
    sa.Column("failure_message", sa.Text),
    sa.Column("artifact", BinaryText, nullable=False),
    sa.Column("run", BinaryText, nullable=False, index=True),
    # The run's row, for searches by what it says; null when it has none.
    sa.Column("run_pk", sa.BigInteger, index=True),
    sa.Column("build", BinaryText, nullable=False, index=True),
    sa.Column("label", BinaryText, nullable=False),
    # A key that sorts labels, semantic versions as such; see `labels.py`.
    sa.Column("label_rank", BinaryText),
    # The label while it is taken: a FAILED version gives it back.
    sa.Column("taken_label", sa.Text),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("license", BinaryText, nullable=False),
    sa.Column("image", BinaryText, nullable=False),
    sa.Column("environment_digest", sa.Text, nullable=False),
    sa.Column("tests_passed", sa.Boolean, nullable=False),
    # The aliases to set when it becomes READY.
    sa.Column("wanted_aliases", sa.LargeBinary, nullable=False),
    sa.Column("creator", BinaryText, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("ready_time", Timestamp),
    sa.Column("archive_time", Timestamp),
    sa.Column("delete_time", Timestamp),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("model_pk", "number"),
    sa.UniqueConstraint("model_pk", "taken_label"),
)
sa.Index("versions_model", VERSIONS.c.model_pk, VERSIONS.c.pk)
sa.Index("versions_pending", VERSIONS.c.create_time, postgresql_where=VERSIONS.c.state == "PENDING")
VERSION_LABELS = sa.Table(
    "version_labels",
    METADATA,
    reference("version_pk", "versions.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", BinaryText, nullable=False),
)
VERSION_PARAMS = sa.Table(
    "version_params",
    METADATA,
    reference("version_pk", "versions.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    # The version's model, for indexes that serve searches; the same below.
    sa.Column("model_pk", sa.BigInteger, nullable=False),
    *param_values(),
)
index_params("version_params", VERSION_PARAMS, owner="version_pk")
VERSION_METRICS = sa.Table(
    "version_metrics",
    METADATA,
    reference("version_pk", "versions.pk", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model_pk", sa.BigInteger, nullable=False),
    sa.Column("last", Double, nullable=False),
    # The last value to sort by: NaN is no value.
    sa.Column("last_rank", sa.Double),
    sa.Column("min", Double),
    sa.Column("max", Double),
)
for _figure in ("last_rank", "min", "max"):
    _indexed = ("model_pk", "key", _figure, "version_pk")
    sa.Index(f"version_metrics_{_figure}", *(VERSION_METRICS.c[name] for name in _indexed))
ALIASES = sa.Table(
    "aliases",
    METADATA,
    reference("model_pk", "models.pk", primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    reference("version_pk", "versions.pk"),
    sa.Column("change_pk", sa.BigInteger, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
)
sa.Index("aliases_version", ALIASES.c.version_pk)
ALIAS_CHANGES = sa.Table(
    "alias_changes",
    METADATA,
    row_id(),
    reference("model_pk", "models.pk"),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("old_number", sa.BigInteger),
    sa.Column("new_number", sa.BigInteger),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("change_time", Timestamp, nullable=False),
)
sa.Index("alias_changes_alias", ALIAS_CHANGES.c.model_pk, ALIAS_CHANGES.c.alias, ALIAS_CHANGES.c.pk)

_FIND_MODEL = sa.select(MODELS.c.pk).where(
    MODELS.c.project == sa.bindparam("project"), MODELS.c.model == sa.bindparam("model")
)
_LOCK_MODEL = _FIND_MODEL.add_columns(MODELS.c.delete_time).with_for_update()
_NEXT_NUMBER = (
    "UPDATE models SET last_number = last_number + 1 WHERE project = ? AND model = ?"
    " AND delete_time IS NULL RETURNING pk, last_number"
)
ORDERS = {"id": MODELS.c.model}
TIMES = {"create_time": MODELS.c.create_time, "update_time": MODELS.c.update_time}
FIELDS: Mapping[str, FieldCompiler] = {
    "id": text_field(MODELS.c.model),
    "display_name": text_field(MODELS.c.display_name),
    "create_time": timestamp_field(MODELS.c.create_time),
    "labels": map_field(
        MODEL_LABELS.c.model_pk == MODELS.c.pk,
        key=MODEL_LABELS.c.key,
        values=text_field(MODEL_LABELS.c.value),
    ),
}


def insert_model(
    connection: Connection, name: ModelName, draft: ModelDraft, now: datetime
) -> int | None:
    """Insert a model and return its row; None when it exists.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND when there is no such project; WRONG_STATE when it is
            deleted.
    """
    hold_project(connection, ProjectName(name.project))
    row = insert_new(
        connection,
        MODELS,
        ["project", "model"],
        project=name.project,
        model=name.model,
        display_name=draft.display_name,
        description=draft.description,
        last_number=_used_number(connection, name),
        revision=1,
        create_time=now,
        update_time=now,
    )
    if row is None:
        return None
    replace_maps(connection, row.pk, labels=draft.labels, goals=draft.metric_goals)
    return int(row.pk)


def lock_model(connection: Connection, name: ModelName, *, deleted: bool = False) -> int | None:
    """Return a model's row, locked until the transaction's end; or None.

    Raises:
        ServiceError: WRONG_STATE when the model is deleted and that does not do.
    """
    row = connection.execute(_LOCK_MODEL, _named_values(name)).first()
    if row is None:
        return None
    if row.delete_time is not None and not deleted:
        raise wrong_state(name, "DELETED", f"{name} is deleted; restore it first")
    return int(row.pk)


def next_number(connection: Connection, name: ModelName) -> tuple[int, int] | None:
    """Return a model's row, locked, and its next version number.

    None when there is no model, or it is deleted.
    """
    found: tuple[int, int] | None
    found = driver_sql(connection, _NEXT_NUMBER, (name.project, name.model)).fetchone()
    return found


def change_model(
    connection: Connection, model_pk: int, *, texts: Mapping[str, str], now: datetime
) -> None:
    """Set a model's texts by column and count the write."""
    values = {**texts, "revision": MODELS.c.revision + 1, "update_time": now}
    connection.execute(MODELS.update().where(MODELS.c.pk == model_pk).values(**values))


def replace_maps(
    connection: Connection,
    model_pk: int,
    *,
    labels: Mapping[str, str] | None = None,
    goals: Mapping[str, MetricGoal] | None = None,
) -> None:
    """Replace a model's labels and goals; None leaves them."""
    for table, column, found in ((MODEL_LABELS, "value", labels), (MODEL_GOALS, "goal", goals)):
        if found is None:
            continue
        connection.execute(table.delete().where(table.c.model_pk == model_pk))
        if found:
            rows = [
                {"model_pk": model_pk, "key": key, column: str(value)}
                for key, value in found.items()
            ]
            connection.execute(table.insert(), rows)


def find_model(connection: Connection, name: ModelName) -> Model | None:
    """Return a model, or None."""
    rows = list(connection.execute(sa.select(MODELS).where(_named(name))))
    return _models(connection, rows)[0] if rows else None


def find_models(connection: Connection, names: Sequence[ModelName]) -> list[Model]:
    """Return those of some models of one project that exist."""
    some = sa.and_(
        MODELS.c.project == names[0].project, MODELS.c.model.in_([name.model for name in names])
    )
    return _models(connection, list(connection.execute(sa.select(MODELS).where(some))))


def list_models(connection: Connection, project: str, listing: Listing) -> Page[Model]:
    """Return a page of a project's models."""
    shown = MODELS.c.removed_id if listing.show_deleted else MODELS.c.delete_time
    query = sa.select(MODELS).where(MODELS.c.project == project, shown.is_(None))
    expression = parse_filter(listing.filter)
    if expression is not None:
        query = query.where(compile_filter(expression, FIELDS))
    sorts = []
    for term in parse_order(listing.order, [*ORDERS, *TIMES]):
        column = term.path[0]
        sorts.append(
            Sort(ORDERS[column], str, term.descending)
            if column in ORDERS
            else by_time(TIMES[column], descending=term.descending)
        )
    sorts.append(Sort(MODELS.c.model, str))
    scope = f"models\n{project}\n{listing.show_deleted}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_models(connection, rows)), token)


def goals_of(
    connection: Connection, names: Sequence[ModelName]
) -> dict[ModelName, dict[str, MetricGoal]]:
    """Return the metric goals of models."""
    goals: dict[ModelName, dict[str, MetricGoal]] = {}
    for name in set(names):
        query = (
            sa.select(MODEL_GOALS.c.key, MODEL_GOALS.c.goal)
            .join(MODELS, MODELS.c.pk == MODEL_GOALS.c.model_pk)
            .where(_named(name))
        )
        goals[name] = {row.key: MetricGoal(row.goal) for row in connection.execute(query)}
    return goals


def maps_of(
    connection: Connection, table: sa.Table, owner: str, pks: Sequence[int]
) -> dict[int, list[Row[Any]]]:
    """Return the rows of a table of maps by their owner's row, by key."""
    found: dict[int, list[Row[Any]]] = defaultdict(list)
    if pks:
        single = len(pks) == 1
        values = {"owner": pks[0] if single else list(pks)}
        for row in connection.execute(_select_maps(table, owner, single=single), values):
            found[row._mapping[owner]].append(row)  # noqa: SLF001 - documented: read by name
    return found


@functools.cache
def _select_maps(table: sa.Table, owner: str, *, single: bool) -> sa.Select[Any]:
    """Build, once, what `maps_of` runs: building it costs several times as much."""
    column = table.c[owner]
    several = column.in_(sa.bindparam("owner", expanding=True))
    wanted = column == sa.bindparam("owner") if single else several
    return sa.select(table).where(wanted).order_by(table.c.key)


def _models(connection: Connection, rows: Sequence[Row[Any]]) -> list[Model]:
    pks = [row.pk for row in rows]
    labels = maps_of(connection, MODEL_LABELS, "model_pk", pks)
    goals = maps_of(connection, MODEL_GOALS, "model_pk", pks)
    return [
        Model(
            name=ModelName(row.project, row.model),
            display_name=row.display_name,
            description=row.description,
            labels={entry.key: entry.value for entry in labels[row.pk]},
            metric_goals={entry.key: MetricGoal(entry.goal) for entry in goals[row.pk]},
            revision=row.revision,
            create_time=row.create_time,
            update_time=row.update_time,
            delete_time=row.delete_time,
        )
        for row in rows
    ]


def _used_number(connection: Connection, name: ModelName) -> int:
    """Return the newest version number that a model of this name ever had."""
    is_it = sa.and_(USED_NUMBERS.c.project == name.project, USED_NUMBERS.c.model == name.model)
    return connection.execute(sa.select(USED_NUMBERS.c.last_number).where(is_it)).scalar() or 0


def _named_values(name: ModelName) -> dict[str, str]:
    return {"project": name.project, "model": name.model}


def _named(name: ModelName) -> sa.ColumnElement[bool]:
    return sa.and_(MODELS.c.project == name.project, MODELS.c.model == name.model)
