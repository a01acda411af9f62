"""Queries of deliveries: the log, and the queue it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.names import WebhookDeliveryName, WebhookName
from services.metadata.listing import Listing, Page
from services.metadata.schema import Sort, fetch_page
from services.metadata.webhooks.domain import (
    Attempt,
    Delivery,
    DeliveryState,
    Outcome,
    Parcel,
)
from services.metadata.webhooks.store import DELIVERIES, WEBHOOKS

NAMED = sa.select(DELIVERIES, WEBHOOKS.c.project, WEBHOOKS.c.webhook).join(
    WEBHOOKS, WEBHOOKS.c.pk == DELIVERIES.c.webhook_pk
)


def add_deliveries(
    connection: Connection, webhook_pk: int, parcels: Sequence[Parcel], now: datetime
) -> None:
    """Put parcels in a webhook's queue, to be tried at once."""
    rows = [
        {
            "webhook_pk": webhook_pk,
            "delivery": parcel.delivery,
            "sequence": parcel.sequence,
            "kind": parcel.kind,
            "subject": parcel.subject,
            "body": parcel.body,
            "state": DeliveryState.PENDING.value,
            "attempt_count": 0,
            "step": 0,
            "response_status": 0,
            "problem": "",
            "due_time": now,
            "queue_time": now,
            "create_time": parcel.time,
        }
        for parcel in parcels
    ]
    if rows:
        connection.execute(DELIVERIES.insert(), rows)


def find_delivery(connection: Connection, name: WebhookDeliveryName) -> Delivery | None:
    """Return a delivery, or None."""
    row = connection.execute(NAMED.where(_named(name))).first()
    return None if row is None else _delivery(row)


def list_deliveries(
    connection: Connection, parent: WebhookName, listing: Listing
) -> Page[Delivery]:
    """Return a page of a webhook's deliveries, newest first."""
    query = NAMED.where(WEBHOOKS.c.project == parent.project, WEBHOOKS.c.webhook == parent.webhook)
    sorts = [Sort(DELIVERIES.c.pk, int, descending=True)]
    scope = f"webhook_deliveries\n{parent}"
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=scope)
    return Page(tuple(_delivery(row) for row in rows), token)


def put_back(connection: Connection, name: WebhookDeliveryName, now: datetime) -> bool:
    """Let a delivery be tried at once, its schedule begun again; False when there is none."""
    owner = sa.select(WEBHOOKS.c.pk).where(
        WEBHOOKS.c.project == name.project, WEBHOOKS.c.webhook == name.webhook
    )
    statement = (
        DELIVERIES.update()
        .where(DELIVERIES.c.webhook_pk == owner.scalar_subquery())
        .where(DELIVERIES.c.delivery == name.delivery)
        .values(state=DeliveryState.PENDING.value, step=0, due_time=now)
    )
    return connection.execute(statement).rowcount == 1


def next_due(connection: Connection) -> Mapping[int, datetime]:
    """Return, by row of the webhooks that do not rest, when each may be delivered to next."""
    earliest = (
        sa.select(DELIVERIES.c.due_time)
        .where(DELIVERIES.c.webhook_pk == WEBHOOKS.c.pk, _PENDING)
        .order_by(DELIVERIES.c.due_time)
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(WEBHOOKS.c.pk, WEBHOOKS.c.lease_end, earliest.label("due_time"))
    rows = connection.execute(query.where(WEBHOOKS.c.disabled.is_(sa.false())))
    return {
        row.pk: max(row.due_time, row.lease_end or row.due_time)
        for row in rows
        if row.due_time is not None
    }


def claim(
    connection: Connection, webhook_pk: int, *, lease: str, now: datetime, lease_end: datetime
) -> Attempt | None:
    """Lease a webhook to try its delivery that is due first; None when there is none, or no lease.

    A webhook is leased to one attempt at a time, whichever replica makes it: this keeps
    its deliveries in order.
    """
    free = sa.or_(WEBHOOKS.c.lease_end.is_(None), WEBHOOKS.c.lease_end <= now)
    leased = (
        WEBHOOKS.update()
        .where(WEBHOOKS.c.pk == webhook_pk, WEBHOOKS.c.disabled.is_(sa.false()), free)
        .values(lease=lease, lease_end=lease_end)
        .returning(WEBHOOKS.c.url, WEBHOOKS.c.sealed_secret)
    )
    webhook = connection.execute(leased).first()
    if webhook is None:
        return None
    due = (
        sa.select(DELIVERIES)
        .where(DELIVERIES.c.webhook_pk == webhook_pk, _PENDING, DELIVERIES.c.due_time <= now)
        .order_by(DELIVERIES.c.due_time, DELIVERIES.c.pk)
        .limit(1)
    )
    row = connection.execute(due).first()
    if row is None:
        _release(connection, webhook_pk, lease)
        return None
    connection.execute(
        DELIVERIES.update()
        .where(DELIVERIES.c.pk == row.pk)
        .values(
            attempt_time=now,
            attempt_count=DELIVERIES.c.attempt_count + 1,
            step=DELIVERIES.c.step + 1,
        )
    )
    return Attempt(
        pk=row.pk,
        webhook_pk=webhook_pk,
        delivery=row.delivery,
        body=row.body,
        url=webhook.url,
        sealed_secret=webhook.sealed_secret,
        lease=lease,
        step=row.step + 1,
    )


def settle(
    connection: Connection, attempt: Attempt, outcome: Outcome, retry_time: datetime | None
) -> None:
    """Write down what became of an attempt, unless it was begun anew since; end its lease."""
    if outcome.delivered:
        state, retry_time = DeliveryState.DELIVERED, None
    else:
        state = DeliveryState.FAILED if retry_time is None else DeliveryState.PENDING
    connection.execute(
        DELIVERIES.update()
        .where(DELIVERIES.c.pk == attempt.pk, DELIVERIES.c.step == attempt.step)
        .values(
            state=state.value,
            response_status=outcome.status,
            problem=outcome.problem,
            due_time=retry_time,
        )
    )
    _release(connection, attempt.webhook_pk, attempt.lease)


def disable_webhook(connection: Connection, webhook_pk: int, now: datetime) -> None:
    """Let a webhook rest because its address is gone."""
    connection.execute(
        WEBHOOKS.update()
        .where(WEBHOOKS.c.pk == webhook_pk, WEBHOOKS.c.disabled.is_(sa.false()))
        .values(disabled=True, revision=WEBHOOKS.c.revision + 1, update_time=now)
    )


def trim_deliveries(connection: Connection, *, before: datetime, limit: int) -> int:
    """Delete old deliveries, at most `limit` of them; return how many."""
    old = sa.select(DELIVERIES.c.pk).where(DELIVERIES.c.queue_time < before).limit(limit)
    pks = list(connection.execute(old).scalars())
    if pks:
        connection.execute(DELIVERIES.delete().where(DELIVERIES.c.pk.in_(pks)))
    return len(pks)


def _release(connection: Connection, webhook_pk: int, lease: str) -> None:
    held = sa.and_(WEBHOOKS.c.pk == webhook_pk, WEBHOOKS.c.lease == lease)
    connection.execute(WEBHOOKS.update().where(held).values(lease=None, lease_end=None))


_PENDING = DELIVERIES.c.state == DeliveryState.PENDING.value


def _named(name: WebhookDeliveryName) -> sa.ColumnElement[bool]:
    return sa.and_(
        WEBHOOKS.c.project == name.project,
        WEBHOOKS.c.webhook == name.webhook,
        DELIVERIES.c.delivery == name.delivery,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        name=WebhookDeliveryName(row.project, row.webhook, row.delivery),
        kind=row.kind,
        subject=row.subject,
        state=DeliveryState(row.state),
        attempt_count=row.attempt_count,
        response_status=row.response_status,
        problem=row.problem,
        next_attempt_time=row.due_time,
        create_time=row.create_time,
        attempt_time=row.attempt_time,
    )
