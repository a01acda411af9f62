"""`client.webhooks`: addresses that are told of a project's changes."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.metadata.v1 import webhook_pb2
from modelyard.metadata.v1 import webhook_service_pb2 as service


class _Webhooks(Group):
    @unary
    def create(
        self,
        webhook: str,
        url: str,
        *,
        filter: str = "",
        description: str = "",
        disabled: bool = False,
        project: Ref | None = None,
    ) -> Call[service.CreateWebhookResponse]:
        """Create a webhook; the answer alone shows its `secret`.

        It posts what is committed from now on. `filter` says which changes, such as
        `type = ALIAS_MOVED AND alias = "production"`; without one, all.
        """
        request = service.CreateWebhookRequest(
            parent=self._names.project(project),
            webhook_id=webhook,
            webhook=webhook_pb2.Webhook(
                url=url, filter=filter, description=description, disabled=disabled
            ),
            request_id=new_request_id(),
        )
        return call(request, service.CreateWebhookResponse, lambda r: r)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[webhook_pb2.Webhook]:
        """List a project's webhooks."""
        request = service.ListWebhooksRequest(parent=self._names.project(project))
        return pages(request, service.ListWebhooksResponse, lambda r: r.webhooks)

    @unary
    def update(
        self,
        webhook: Ref,
        *,
        url: str | None = None,
        filter: str | None = None,
        description: str | None = None,
        disabled: bool | None = None,
        etag: str = "",
    ) -> Call[webhook_pb2.Webhook]:
        """Change a webhook; with an `etag`, only if nobody else did.

        What happens while it is disabled is not delivered later.
        """
        given = {"url": url, "filter": filter, "description": description, "disabled": disabled}
        message = webhook_pb2.Webhook(
            name=self._names.webhook(webhook),
            url=url or "",
            filter=filter or "",
            description=description or "",
            disabled=bool(disabled),
            etag=etag,
        )
        request = service.UpdateWebhookRequest(webhook=message, request_id=new_request_id())
        request.update_mask.paths.extend(key for key, value in given.items() if value is not None)
        return call(request, service.UpdateWebhookResponse, lambda r: r.webhook)

    @unary
    def delete(self, webhook: Ref, *, etag: str = "") -> Call[None]:
        """Delete a webhook with its deliveries."""
        request = service.DeleteWebhookRequest(name=self._names.webhook(webhook), etag=etag)
        return call(request, service.DeleteWebhookResponse, lambda _: None)

    @unary
    def test(self, webhook: Ref) -> Call[webhook_pb2.WebhookDelivery]:
        """Have a `webhook.test` event posted."""
        request = service.TestWebhookRequest(name=self._names.webhook(webhook))
        return call(request, service.TestWebhookResponse, lambda r: r.delivery)

    @paged
    def deliveries(self, webhook: Ref) -> Pages[webhook_pb2.WebhookDelivery]:
        """List a webhook's deliveries, newest first."""
        request = service.ListWebhookDeliveriesRequest(parent=self._names.webhook(webhook))
        return pages(request, service.ListWebhookDeliveriesResponse, lambda r: r.webhook_deliveries)

    @unary
    def redeliver(self, delivery: Ref) -> Call[webhook_pb2.WebhookDelivery]:
        """Deliver something once more, `audit/d12…` in short, whatever became of it."""
        name = self._names.webhook_delivery(delivery)
        request = service.RedeliverWebhookRequest(name=name)
        return call(request, service.RedeliverWebhookResponse, lambda r: r.delivery)


class Webhooks(_Webhooks, SyncGroup):
    """Addresses that are told of a project's changes."""


class AsyncWebhooks(_Webhooks, AsyncGroup):
    """Addresses that are told of a project's changes."""
