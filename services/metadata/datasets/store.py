"""Tables and queries of datasets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import DatasetName, DatasetVersionName, ProjectName
from services.common.sql.database import Timestamp
from services.metadata.datasets.domain import (
    Column,
    ColumnProfile,
    Dataset,
    DatasetSource,
    DatasetVersion,
    DatasetVersionDraft,
)
from services.metadata.listing import Listing, Page
from services.metadata.projects.store import hold_project
from services.metadata.schema import METADATA, Sort, fetch_page, insert_new, reference, row_id
from services.metadata.values import pack

DATASETS = sa.Table(
    "datasets",
    METADATA,
    row_id(),
    sa.Column("project", sa.Text, sa.ForeignKey("projects.project"), nullable=False),
    sa.Column("dataset", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    # The newest number allotted; it only rises, so none is used twice.
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.UniqueConstraint("project", "dataset"),
)
DATASET_VERSIONS = sa.Table(
    "dataset_versions",
    METADATA,
    row_id(),
    reference("dataset_pk", "datasets.pk"),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("source", sa.LargeBinary),
    sa.Column("columns", sa.LargeBinary, nullable=False),
    # Apart from the columns, so that lists need not read them.
    sa.Column("profiles", sa.LargeBinary, nullable=False),
    sa.Column("row_count", sa.BigInteger),
    sa.Column("artifact", sa.Text, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.UniqueConstraint("dataset_pk", "number"),
    sa.UniqueConstraint("dataset_pk", "digest"),
)


def lock_dataset(connection: Connection, name: DatasetName, now: datetime) -> int:
    """Return a dataset's row, created if need be, locked until the transaction's end.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND when there is no such project; WRONG_STATE when it is
            deleted.
    """
    hold_project(connection, ProjectName(name.project))
    insert_new(
        connection,
        DATASETS,
        ["project", "dataset"],
        project=name.project,
        dataset=name.dataset,
        description="",
        last_number=0,
        create_time=now,
    )
    query = sa.select(DATASETS.c.pk).where(_named(name)).with_for_update()
    return int(connection.execute(query).scalar_one())


def find_by_digest(connection: Connection, dataset_pk: int, digest: str) -> DatasetVersion | None:
    """Return the version of a dataset that has a digest, or None."""
    query = _select(DATASET_VERSIONS.c.profiles).where(
        DATASET_VERSIONS.c.dataset_pk == dataset_pk, DATASET_VERSIONS.c.digest == digest
    )
    row = connection.execute(query).first()
    return None if row is None else _version(row)


def insert_version(
    connection: Connection,
    dataset_pk: int,
    draft: DatasetVersionDraft,
    *,
    creator: str,
    now: datetime,
) -> None:
    """Insert a version under the dataset's next number; the dataset must be locked."""
    advance = (
        DATASETS.update()
        .where(DATASETS.c.pk == dataset_pk)
        .values(last_number=DATASETS.c.last_number + 1)
        .returning(DATASETS.c.last_number)
    )
    values = {
        "dataset_pk": dataset_pk,
        "number": connection.execute(advance).scalar_one(),
        "digest": draft.digest,
        "source": pack(draft.source) if draft.source else None,
        "columns": pack([(column.name, column.type) for column in draft.schema]),
        "profiles": pack([column.profile for column in draft.schema]),
        "row_count": draft.row_count,
        "artifact": draft.artifact,
        "creator": creator,
        "create_time": now,
    }
    connection.execute(DATASET_VERSIONS.insert().values(values))


def find_version(connection: Connection, name: DatasetVersionName) -> DatasetVersion | None:
    """Return a dataset version, or None."""
    query = _select(DATASET_VERSIONS.c.profiles).where(
        _named(DatasetName(name.project, name.dataset)), DATASET_VERSIONS.c.number == name.version
    )
    row = connection.execute(query).first()
    return None if row is None else _version(row)


def list_datasets(connection: Connection, project: str, listing: Listing) -> Page[Dataset]:
    """Return a page of a project's datasets by id."""
    query = sa.select(DATASETS).where(DATASETS.c.project == project)
    sorts = [Sort(DATASETS.c.dataset, str)]
    scope = f"datasets\n{project}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    found = (
        Dataset(DatasetName(row.project, row.dataset), row.description, row.create_time)
        for row in rows
    )
    return Page(tuple(found), token)


def list_versions(
    connection: Connection, parent: DatasetName, listing: Listing
) -> Page[DatasetVersion]:
    """Return a page of a dataset's versions, newest first, without profiles."""
    query = _select().where(_named(parent))
    sorts = [Sort(DATASET_VERSIONS.c.number, int, descending=True)]
    scope = f"dataset-versions\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_version(row) for row in rows), token)


def remove_datasets(connection: Connection, project: str) -> list[DatasetName]:
    """Remove all of a project's datasets, with their versions; return which they were."""
    of_project = DATASETS.c.project == project
    ids = connection.execute(sa.select(DATASETS.c.dataset).where(of_project)).scalars().all()
    pks = sa.select(DATASETS.c.pk).where(of_project)
    connection.execute(DATASET_VERSIONS.delete().where(DATASET_VERSIONS.c.dataset_pk.in_(pks)))
    connection.execute(DATASETS.delete().where(of_project))
    return [DatasetName(project, dataset) for dataset in ids]


def _select(*profiles: sa.ColumnElement[Any]) -> sa.Select[Any]:
    rest = [column for column in DATASET_VERSIONS.c if column.name != "profiles"]
    return sa.select(*rest, *profiles, DATASETS.c.project, DATASETS.c.dataset).join(
        DATASETS, DATASETS.c.pk == DATASET_VERSIONS.c.dataset_pk
    )


def _named(name: DatasetName) -> sa.ColumnElement[bool]:
    return sa.and_(DATASETS.c.project == name.project, DATASETS.c.dataset == name.dataset)


def _version(row: Row[Any]) -> DatasetVersion:
    decode = msgspec.msgpack.decode
    return DatasetVersion(
        name=DatasetVersionName(row.project, row.dataset, row.number),
        digest=row.digest,
        source=None if row.source is None else decode(row.source, type=DatasetSource),
        schema=_schema(row),
        row_count=row.row_count,
        artifact=row.artifact,
        creator=row.creator,
        create_time=row.create_time,
    )


def _schema(row: Row[Any]) -> tuple[Column, ...]:
    """Return the columns, with profiles if those were selected."""
    names = msgspec.msgpack.decode(row.columns, type=list[tuple[str, str]])
    if "profiles" not in row._fields:
        return tuple(Column(name, kind) for name, kind in names)
    profiles = msgspec.msgpack.decode(row.profiles, type=list[ColumnProfile | None])
    pairs = zip(names, profiles, strict=True)
    return tuple(Column(name, kind, profile) for (name, kind), profile in pairs)
