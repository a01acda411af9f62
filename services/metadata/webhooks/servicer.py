"""The gRPC edge of webhooks: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import webhook_service_pb2 as pb
from modelyard.metadata.v1 import webhook_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import ProjectName, WebhookDeliveryName, WebhookName
from services.metadata.webhooks import codec
from services.metadata.webhooks.subscriptions import Subscriptions
from services.metadata.wire import listing

Context = grpc.aio.ServicerContext[Any, Any]


class WebhookServicer(webhook_service_pb2_grpc.WebhookServiceServicer):
    """Serve `modelyard.metadata.v1.WebhookService`."""

    def __init__(self, *, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    async def CreateWebhook(
        self, request: pb.CreateWebhookRequest, context: Context
    ) -> pb.CreateWebhookResponse:
        """Create a webhook and show its secret once."""
        call, draft = current_call(), codec.draft(request.webhook)
        webhook, secret = await self._subscriptions.create(
            codec.new_name(request), draft, creator=call.caller.principal, key=call.key(request)
        )
        return pb.CreateWebhookResponse(webhook=codec.webhook(webhook), secret=secret)

    async def ListWebhooks(
        self, request: pb.ListWebhooksRequest, context: Context
    ) -> pb.ListWebhooksResponse:
        """Return a page of webhooks."""
        parent = ProjectName.parse(request.parent, "parent")
        page = await self._subscriptions.list_webhooks(parent, listing(request))
        return pb.ListWebhooksResponse(
            webhooks=[codec.webhook(webhook) for webhook in page.items],
            next_page_token=page.next_token,
        )

    async def UpdateWebhook(
        self, request: pb.UpdateWebhookRequest, context: Context
    ) -> pb.UpdateWebhookResponse:
        """Change a webhook."""
        webhook = await self._subscriptions.update(
            WebhookName.parse(request.webhook.name, "webhook.name"),
            codec.draft(request.webhook),
            paths=codec.update_paths(request),
            etag=request.webhook.etag,
            key=current_call().key(request),
        )
        return pb.UpdateWebhookResponse(webhook=codec.webhook(webhook))

    async def DeleteWebhook(
        self, request: pb.DeleteWebhookRequest, context: Context
    ) -> pb.DeleteWebhookResponse:
        """Delete a webhook."""
        await self._subscriptions.delete(WebhookName.parse(request.name), etag=request.etag)
        return pb.DeleteWebhookResponse()

    async def TestWebhook(
        self, request: pb.TestWebhookRequest, context: Context
    ) -> pb.TestWebhookResponse:
        """Send a test event."""
        name, actor = WebhookName.parse(request.name), current_call().caller.principal
        delivery = await self._subscriptions.test(name, actor=actor)
        return pb.TestWebhookResponse(delivery=codec.delivery(delivery))

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: Context
    ) -> pb.ListWebhookDeliveriesResponse:
        """Return a page of deliveries."""
        parent = WebhookName.parse(request.parent, "parent")
        page = await self._subscriptions.list_deliveries(parent, listing(request))
        return pb.ListWebhookDeliveriesResponse(
            webhook_deliveries=[codec.delivery(delivery) for delivery in page.items],
            next_page_token=page.next_token,
        )

    async def RedeliverWebhook(
        self, request: pb.RedeliverWebhookRequest, context: Context
    ) -> pb.RedeliverWebhookResponse:
        """Deliver something once more."""
        delivery = await self._subscriptions.redeliver(WebhookDeliveryName.parse(request.name))
        return pb.RedeliverWebhookResponse(delivery=codec.delivery(delivery))
