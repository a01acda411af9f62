"""Searching versions: which fields they have, of their own and of the runs they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from services.common.listing.filtering import (
    FilterProblemError,
    Literal,
    Operator,
    enum_field,
    flag_field,
    optional_text_field,
    text_field,
)
from services.common.names import ArtifactName, ModelName
from services.metadata import search_schema as fields
from services.metadata.listing import Listing, Page
from services.metadata.models.domain import Version, VersionState
from services.metadata.models.labels import label_rank
from services.metadata.models.store import (
    ALIASES,
    MODELS,
    VERSION_LABELS,
    VERSION_METRICS,
    VERSION_PARAMS,
    VERSIONS,
)
from services.metadata.models.version_store import load_versions, select_versions
from services.metadata.runs.search_store import uses_dataset
from services.metadata.runs.store import RUN_TAGS, RUNS
from services.metadata.schema import Sort, in_pks
from services.metadata.search_store import search

Path = tuple[str, ...]


def list_versions(
    connection: Connection, parent: ModelName, listing: Listing, *, seconds: float
) -> Page[Version]:
    """Return a page of a model's versions, or of all models' (`-`), without cards.

    Raises:
        ServiceError: see `search`.
    """
    pks, token = search(connection, SUBJECT, parent, listing, seconds=seconds)
    if not pks:
        return Page((), token)
    rows = connection.execute(select_versions().where(in_pks(connection, VERSIONS.c.pk, pks)))
    by_pk = {row.pk: row for row in rows}
    # One that was purged meanwhile is left out.
    found = [by_pk[pk] for pk in pks if pk in by_pk]
    return Page(tuple(load_versions(connection, found)), token)


def _compare_label(path: Path, operator: Operator, literal: Literal) -> sa.ColumnElement[bool]:
    if operator is Operator.HAS or not isinstance(literal, str) or not literal or path:
        return optional_text_field(VERSIONS.c.label)(path, operator, literal)
    return fields.compare_text(VERSIONS.c.label_rank, operator, label_rank(literal))


def _compare_artifact(path: Path, operator: Operator, literal: Literal) -> sa.ColumnElement[bool]:
    """Compare a version's artifact with an artifact's name."""
    if operator is not Operator.EQUAL or not isinstance(literal, str) or path:
        raise FilterProblemError("is compared by = with the quoted name of an artifact")
    if not ArtifactName.expression.fullmatch(literal):
        raise FilterProblemError("wants the name of an artifact")
    name = ArtifactName.parse(literal)
    project = sa.select(MODELS.c.project).where(MODELS.c.pk == VERSIONS.c.model_pk)
    same = project.scalar_subquery().correlate(VERSIONS) == name.project
    return sa.and_(VERSIONS.c.artifact == name.artifact, same)


def _compare_alias(path: Path, operator: Operator, literal: Literal) -> sa.ColumnElement[bool]:
    compared = text_field(ALIASES.c.alias)(path, operator, literal)
    points_here = ALIASES.c.version_pk == VERSIONS.c.pk
    return sa.exists().where(points_here, compared).correlate_except(ALIASES)


def _of_run(column: sa.Column[Any]) -> fields.Field:
    """Make a field of what a version's run says."""
    of_run = RUNS.c.pk == VERSIONS.c.run_pk
    value = sa.select(column).where(of_run).scalar_subquery().correlate(VERSIONS)
    found = RUNS.alias()

    def order(path: Path, descending: bool) -> fields.Ordering:
        sort = Sort(sa.func.nullif(found.c[column.name], ""), str, descending)
        return fields.Ordering((sort,), found, found.c.pk == VERSIONS.c.run_pk)

    return fields.Field(optional_text_field(sa.func.coalesce(value, "")), order)


def _probe_commit(
    scope: fields.Scope, path: Path, operator: Operator, literal: Literal
) -> sa.Select[Any] | None:
    probe = fields.text(RUNS.c.git_commit, indexed=True).probe
    runs = probe(scope, path, operator, literal) if probe else None
    if runs is None:
        return None
    return sa.select(VERSIONS.c.pk).where(VERSIONS.c.run_pk.in_(runs))


_ARCHIVED = VERSIONS.c.archive_time.is_not(None)
_IS_ARCHIVED = sa.case((_ARCHIVED, 1), else_=0)
FIELDS: Mapping[str, fields.Field] = {
    "number": fields.whole_number(VERSIONS.c.number),
    "state": fields.state(VERSIONS.c.state, enum_field(VERSIONS.c.state, list(VersionState))),
    "label": fields.Field(_compare_label, fields.plain(VERSIONS.c.label_rank, str)),
    "labels": fields.tags(VERSION_LABELS, "version_pk", VERSIONS.c.pk),
    "license": fields.text(VERSIONS.c.license),
    "image": fields.text(VERSIONS.c.image),
    "archived": fields.Field(flag_field(_ARCHIVED), fields.plain(_IS_ARCHIVED, int)),
    "alias": fields.Field(_compare_alias),
    "run": fields.text(VERSIONS.c.run, indexed=True),
    "build": fields.text(VERSIONS.c.build, indexed=True),
    "artifact": fields.Field(_compare_artifact, fields.plain(VERSIONS.c.artifact, str)),
    "creator": fields.text(VERSIONS.c.creator),
    "create_time": fields.moment(VERSIONS.c.create_time),
    "ready_time": fields.moment(VERSIONS.c.ready_time),
    "params": fields.params(VERSION_PARAMS, "version_pk", VERSIONS.c.pk),
    # The tags of its run: what finds them finds runs, so there is no probe.
    "tags": replace(fields.tags(RUN_TAGS, "run_pk", VERSIONS.c.run_pk), probe=None),
    "commit": replace(_of_run(RUNS.c.git_commit), probe=_probe_commit),
    "branch": _of_run(RUNS.c.git_branch),
    "dataset": fields.Field(uses_dataset(VERSIONS.c.run_pk)),
}


def _shown(deleted: bool) -> tuple[sa.ColumnElement[bool], ...]:
    """Say which versions a list shows."""
    return () if deleted else (VERSIONS.c.delete_time.is_(None),)


SUBJECT = fields.Subject(
    word="versions",
    table=VERSIONS,
    owner="version_pk",
    metrics=VERSION_METRICS,
    fields=FIELDS,
    shown=_shown,
)
