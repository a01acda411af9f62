"""The table and queries of evaluations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import VersionName
from services.common.sql.database import Timestamp
from services.metadata.listing import Listing, Page
from services.metadata.models.domain import Evaluation, EvaluationDraft
from services.metadata.schema import METADATA, Sort, fetch_page, reference, row_id
from services.metadata.values import pack

EVALUATIONS = sa.Table(
    "evaluations",
    METADATA,
    row_id(),
    reference("version_pk", "versions.pk"),
    # Rising from 1 within a version.
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("metrics", sa.LargeBinary, nullable=False),
    sa.Column("dataset_version", sa.Text, nullable=False, index=True),
    sa.Column("evaluate_time", Timestamp, nullable=False),
    sa.Column("notes", sa.Text, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.UniqueConstraint("version_pk", "number"),
)


def insert_evaluation(
    connection: Connection,
    version: VersionName,
    version_pk: int,
    draft: EvaluationDraft,
    *,
    creator: str,
    now: datetime,
) -> Evaluation:
    """Record an evaluation under the next number; the version's model must be locked."""
    newest = sa.select(sa.func.max(EVALUATIONS.c.number)).where(
        EVALUATIONS.c.version_pk == version_pk
    )
    row = {
        "version_pk": version_pk,
        "number": (connection.execute(newest).scalar() or 0) + 1,
        "metrics": pack(draft.metrics),
        "dataset_version": draft.dataset_version,
        "evaluate_time": draft.evaluate_time or now,
        "notes": draft.notes,
        "creator": creator,
        "create_time": now,
    }
    statement = EVALUATIONS.insert().values(**row).returning(EVALUATIONS)
    return _evaluation(connection.execute(statement).one(), version)


def list_evaluations(
    connection: Connection, parent: VersionName, version_pk: int, listing: Listing
) -> Page[Evaluation]:
    """Return a page of a version's evaluations, newest first."""
    query = sa.select(EVALUATIONS).where(EVALUATIONS.c.version_pk == version_pk)
    sorts = [Sort(EVALUATIONS.c.number, int, descending=True)]
    scope = f"evaluations\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_evaluation(row, parent) for row in rows), token)


def _evaluation(row: Row[Any], version: VersionName) -> Evaluation:
    return Evaluation(
        name=version.evaluation(row.number),
        metrics=msgspec.msgpack.decode(row.metrics, type=dict[str, float]),
        dataset_version=row.dataset_version,
        evaluate_time=row.evaluate_time,
        notes=row.notes,
        creator=row.creator,
        create_time=row.create_time,
    )
