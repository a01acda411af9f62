"""Webhooks as their owners see them: made, changed, tested, and what was delivered."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from services.common.errors import (
    Reason,
    ServiceError,
    already_exists,
    etag_mismatch,
    not_found,
)
from services.common.names import ProjectName, WebhookDeliveryName, WebhookName
from services.common.sealing import Seal
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.limits import limit_exceeded
from services.metadata.listing import Listing, Page
from services.metadata.webhooks import bodies, delivery_store, filters, store
from services.metadata.webhooks.addresses import AddressRules
from services.metadata.webhooks.domain import Delivery, Webhook, WebhookDraft
from services.metadata.webhooks.signatures import new_secret

WEBHOOKS = 100


class Subscriptions:
    """Keeps webhooks; `wake` is called when there may be something to move or to deliver."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        seal: Seal,
        rules: AddressRules,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._seal = seal
        self._rules = rules
        self._wake = wake

    async def create(
        self, name: WebhookName, draft: WebhookDraft, *, creator: str, key: Key | None
    ) -> tuple[Webhook, str]:
        """Create a webhook; return it with its secret, which is never shown again.

        Raises:
            ServiceError: RESOURCE_EXISTS, RESOURCE_NOT_FOUND, INVALID_FIELD, INVALID_FILTER;
                REQUEST_ID_REUSED on a repeat; LIMIT_EXCEEDED.
        """
        self._check(draft, ("url", "filter"))
        now, secret = self._clock(), new_secret()
        sealed, made = self._seal.close(secret), list[bool]()

        def create(tx: Transaction) -> Webhook:
            added = store.add_webhook(
                tx.connection, name, draft, sealed_secret=sealed, creator=creator, now=now
            )
            if added is None:
                raise already_exists(name)
            if store.count_webhooks(tx.connection, name.project) > WEBHOOKS:
                raise limit_exceeded("webhooks_of_a_project", WEBHOOKS)
            made.append(True)
            return added

        def write(tx: Transaction) -> Webhook:
            made.clear()  # the transaction may be run again
            return once(tx, key, Webhook, lambda: create(tx))

        webhook = await self._database.write(write)
        if not made:
            raise _secret_shown(webhook.name, key)
        self._wake()
        return webhook, secret

    async def list_webhooks(self, parent: ProjectName, listing: Listing) -> Page[Webhook]:
        """Return a page of a project's webhooks."""
        return await self._database.read(
            lambda tx: store.list_webhooks(tx.connection, parent, listing)
        )

    async def update(
        self,
        name: WebhookName,
        draft: WebhookDraft,
        *,
        paths: Collection[str],
        etag: str,
        key: Key | None,
    ) -> Webhook:
        """Change the fields named by `paths`; one that wakes goes on at the ledger's end.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH, INVALID_FIELD, INVALID_FILTER.
        """
        self._check(draft, paths)
        now = self._clock()

        def change(tx: Transaction) -> Webhook:
            pk, current = _expected(tx, name, etag)
            if current.disabled and "disabled" in paths and not draft.disabled:
                store.skip_to_end(tx.connection, pk, name.project)
            values = {path: getattr(draft, path) for path in paths}
            return store.change_webhook(tx.connection, pk, values, now)

        webhook = await self._database.write(lambda tx: once(tx, key, Webhook, lambda: change(tx)))
        self._wake()
        return webhook

    async def delete(self, name: WebhookName, *, etag: str) -> None:
        """Delete a webhook with its deliveries.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH.
        """
        await self._database.write(
            lambda tx: store.delete_webhook(tx.connection, _expected(tx, name, etag)[0])
        )

    async def test(self, name: WebhookName, *, actor: str) -> Delivery:
        """Put a test event in a webhook's queue.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """
        now = self._clock()
        parcel = bodies.of_test(name, actor, now)

        def add(tx: Transaction) -> Delivery:
            pk, _ = _expected(tx, name, "")
            delivery_store.add_deliveries(tx.connection, pk, [parcel], now)
            return _delivery(tx, WebhookDeliveryName(name.project, name.webhook, parcel.delivery))

        return await self._queued(add)

    async def list_deliveries(self, parent: WebhookName, listing: Listing) -> Page[Delivery]:
        """Return a page of a webhook's deliveries, newest first.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """

        def read(tx: Transaction) -> Page[Delivery]:
            if store.find_webhook(tx.connection, parent) is None:
                raise not_found(parent)
            return delivery_store.list_deliveries(tx.connection, parent, listing)

        return await self._database.read(read)

    async def redeliver(self, name: WebhookDeliveryName) -> Delivery:
        """Let something be delivered once more, whatever became of it.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND.
        """
        now = self._clock()

        def put_back(tx: Transaction) -> Delivery:
            if not delivery_store.put_back(tx.connection, name, now):
                raise not_found(name)
            return _delivery(tx, name)

        return await self._queued(put_back)

    async def _queued(self, work: Callable[[Transaction], Delivery]) -> Delivery:
        delivery = await self._database.write(work)
        self._wake()
        return delivery

    def _check(self, draft: WebhookDraft, paths: Collection[str]) -> None:
        if "url" in paths:
            self._rules.check(draft.url, "webhook.url")
        if "filter" in paths:
            filters.compiled(draft.filter)


def _expected(tx: Transaction, name: WebhookName, etag: str) -> tuple[int, Webhook]:
    """Return a webhook and its row, locked, if it is there and as the caller believes."""
    found = store.lock_webhook(tx.connection, name)
    if found is None:
        raise not_found(name)
    revision = str(found[1].revision)
    if etag and etag != revision:
        raise etag_mismatch(name, current=revision)
    return found


def _delivery(tx: Transaction, name: WebhookDeliveryName) -> Delivery:
    found = delivery_store.find_delivery(tx.connection, name)
    if found is None:
        raise not_found(name)
    return found


def _secret_shown(name: WebhookName, key: Key | None) -> ServiceError:
    return ServiceError(
        Reason.REQUEST_ID_REUSED,
        f"{name} was created by this request_id; its secret cannot be shown again",
        request_id=key.request_id if key else "",
    )
