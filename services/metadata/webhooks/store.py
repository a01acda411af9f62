"""Tables and queries of webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import ProjectName, WebhookName
from services.common.sql.database import Timestamp, Transaction
from services.common.sql.outbox import last_sequence
from services.metadata.changes import topic
from services.metadata.listing import Listing, Page
from services.metadata.projects.store import hold_project
from services.metadata.schema import METADATA, Sort, fetch_page, insert_new, reference, row_id
from services.metadata.webhooks.domain import Webhook, WebhookDraft

WEBHOOKS = sa.Table(
    "webhooks",
    METADATA,
    row_id(),
    sa.Column("project", sa.Text, sa.ForeignKey("projects.project"), nullable=False),
    sa.Column("webhook", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("filter", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    # Encrypted, see `common/sealing.py`.
    sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
    # The last change of the project's ledger that was looked at.
    sa.Column("cursor", sa.BigInteger, nullable=False),
    # When something was last put in its queue, which no replica's clock may go behind.
    sa.Column("queue_time", Timestamp, nullable=False),
    # Who delivers to it at the moment, and until when nobody else may.
    sa.Column("lease", sa.Text),
    sa.Column("lease_end", Timestamp),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("creator", sa.Text, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    sa.UniqueConstraint("project", "webhook"),
)
DELIVERIES = sa.Table(
    "webhook_deliveries",
    METADATA,
    row_id(),
    reference("webhook_pk", "webhooks.pk"),
    sa.Column("delivery", sa.Text, nullable=False),
    # Of the change; NULL of a test. A change is delivered to a webhook once.
    sa.Column("sequence", sa.BigInteger),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt_count", sa.BigInteger, nullable=False),
    # Where in the schedule of retries it is; a redelivery begins it again.
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("response_status", sa.BigInteger, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    # When it may be tried; NULL when it is not.
    sa.Column("due_time", Timestamp),
    # When it was put here, which may be long after what it tells of.
    sa.Column("queue_time", Timestamp, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("attempt_time", Timestamp),
    sa.UniqueConstraint("webhook_pk", "delivery"),
    sa.UniqueConstraint("webhook_pk", "sequence"),
)
sa.Index(
    "webhook_deliveries_due",
    DELIVERIES.c.webhook_pk,
    DELIVERIES.c.state,
    DELIVERIES.c.due_time,
)
sa.Index("webhook_deliveries_age", DELIVERIES.c.queue_time)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A webhook that changes are moved to."""

    pk: int
    name: WebhookName
    filter: str
    cursor: int
    queue_time: datetime


def remove_webhooks(connection: Connection, project: str) -> None:
    """Remove all of a project's webhooks, with their deliveries."""
    of_project = WEBHOOKS.c.project == project
    pks = sa.select(WEBHOOKS.c.pk).where(of_project)
    connection.execute(DELIVERIES.delete().where(DELIVERIES.c.webhook_pk.in_(pks)))
    connection.execute(WEBHOOKS.delete().where(of_project))


def add_webhook(
    connection: Connection,
    name: WebhookName,
    draft: WebhookDraft,
    *,
    sealed_secret: bytes,
    creator: str,
    now: datetime,
) -> Webhook | None:
    """Insert a webhook that begins at the ledger's end; None when it exists.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND when there is no such project; WRONG_STATE when it is
            deleted.
    """
    hold_project(connection, ProjectName(name.project))
    row = insert_new(
        connection,
        WEBHOOKS,
        ["project", "webhook"],
        project=name.project,
        webhook=name.webhook,
        url=draft.url,
        filter=draft.filter,
        description=draft.description,
        disabled=draft.disabled,
        sealed_secret=sealed_secret,
        cursor=last_sequence(connection, topic(name.project)),
        queue_time=now,
        revision=1,
        creator=creator,
        create_time=now,
        update_time=now,
    )
    return None if row is None else _webhook(row)


def count_webhooks(connection: Connection, project: str) -> int:
    """Count a project's webhooks."""
    query = sa.select(sa.func.count()).where(WEBHOOKS.c.project == project)
    return int(connection.execute(query).scalar_one())


def find_webhook(connection: Connection, name: WebhookName) -> Webhook | None:
    """Return a webhook, or None."""
    row = connection.execute(sa.select(WEBHOOKS).where(_named(name))).first()
    return None if row is None else _webhook(row)


def lock_webhook(connection: Connection, name: WebhookName) -> tuple[int, Webhook] | None:
    """Return a webhook and its row, locked until the transaction's end; or None."""
    query = sa.select(WEBHOOKS).where(_named(name)).with_for_update()
    row = connection.execute(query).first()
    return None if row is None else (row.pk, _webhook(row))


def list_webhooks(connection: Connection, parent: ProjectName, listing: Listing) -> Page[Webhook]:
    """Return a page of a project's webhooks by id."""
    query = sa.select(WEBHOOKS).where(WEBHOOKS.c.project == parent.project)
    sorts = [Sort(WEBHOOKS.c.webhook, str)]
    scope = f"webhooks\n{parent.project}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_webhook(row) for row in rows), token)


def change_webhook(
    connection: Connection, webhook_pk: int, values: Mapping[str, Any], now: datetime
) -> Webhook:
    """Set columns of a webhook and count the write."""
    statement = (
        WEBHOOKS.update()
        .where(WEBHOOKS.c.pk == webhook_pk)
        .values(**values, revision=WEBHOOKS.c.revision + 1, update_time=now)
        .returning(WEBHOOKS)
    )
    return _webhook(connection.execute(statement).one())


def skip_to_end(connection: Connection, webhook_pk: int, project: str) -> None:
    """Let a webhook go on at the ledger's end: what happened before is not delivered."""
    end = last_sequence(connection, topic(project))
    connection.execute(WEBHOOKS.update().where(WEBHOOKS.c.pk == webhook_pk).values(cursor=end))


def delete_webhook(connection: Connection, webhook_pk: int) -> None:
    """Delete a webhook with its deliveries."""
    connection.execute(DELIVERIES.delete().where(DELIVERIES.c.webhook_pk == webhook_pk))
    connection.execute(WEBHOOKS.delete().where(WEBHOOKS.c.pk == webhook_pk))


def subscribed_projects(connection: Connection) -> set[str]:
    """Return the projects that have webhooks which do not rest."""
    query = sa.select(WEBHOOKS.c.project).where(WEBHOOKS.c.disabled.is_(sa.false())).distinct()
    return set(connection.execute(query).scalars())


def is_behind(connection: Connection, project: str) -> bool:
    """Say whether some webhook of a project has not seen the ledger's end."""
    query = sa.select(sa.func.min(WEBHOOKS.c.cursor)).where(_awake(project))
    cursor = connection.execute(query).scalar()
    return cursor is not None and cursor < last_sequence(connection, topic(project))


def lock_subscribers(connection: Connection, project: str) -> list[Subscriber]:
    """Return a project's webhooks that do not rest, locked until the transaction's end."""
    query = sa.select(WEBHOOKS).where(_awake(project)).order_by(WEBHOOKS.c.pk).with_for_update()
    return [
        Subscriber(
            row.pk, WebhookName(row.project, row.webhook), row.filter, row.cursor, row.queue_time
        )
        for row in connection.execute(query)
    ]


def advance(connection: Connection, webhook_pk: int, cursor: int, queue_time: datetime) -> None:
    """Move the cursor of a locked webhook, up to which changes were put in its queue."""
    where = WEBHOOKS.c.pk == webhook_pk
    moved = WEBHOOKS.update().where(where).values(cursor=cursor, queue_time=queue_time)
    connection.execute(moved)


def least_cursor(tx: Transaction, topic: str) -> int | None:
    """Return up to where every webhook that does not rest has seen a ledger; None: no webhook."""
    query = sa.select(sa.func.min(WEBHOOKS.c.cursor)).where(_awake(topic.partition("/")[2]))
    found: int | None = tx.connection.execute(query).scalar()
    return found


def _awake(project: str) -> sa.ColumnElement[bool]:
    return sa.and_(WEBHOOKS.c.project == project, WEBHOOKS.c.disabled.is_(sa.false()))


def _named(name: WebhookName) -> sa.ColumnElement[bool]:
    return sa.and_(WEBHOOKS.c.project == name.project, WEBHOOKS.c.webhook == name.webhook)


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        name=WebhookName(row.project, row.webhook),
        url=row.url,
        filter=row.filter,
        description=row.description,
        disabled=row.disabled,
        revision=row.revision,
        creator=row.creator,
        create_time=row.create_time,
        update_time=row.update_time,
    )
