"""Between messages and domain: webhooks and their deliveries."""

from __future__ import annotations

from modelyard.metadata.v1 import webhook_pb2, webhook_service_pb2

from services.common.errors import invalid_field
from services.common.names import ProjectName, WebhookName, check_id
from services.metadata import limits
from services.metadata.webhooks.domain import Delivery, Webhook, WebhookDraft
from services.metadata.wire import stamp

DESCRIPTION = 1_000
PATHS = ("url", "filter", "description", "disabled")


def new_name(request: webhook_service_pb2.CreateWebhookRequest) -> WebhookName:
    """Return the name of the webhook to create."""
    project = ProjectName.parse(request.parent, "parent").project
    return WebhookName(project, check_id(request.webhook_id, "webhook_id"))


def draft(message: webhook_pb2.Webhook) -> WebhookDraft:
    """Return what the caller says of a webhook; address and filter are checked in its use."""
    return WebhookDraft(
        url=message.url,
        filter=message.filter,
        description=limits.lines(message.description, "webhook.description", DESCRIPTION),
        disabled=message.disabled,
    )


def update_paths(request: webhook_service_pb2.UpdateWebhookRequest) -> tuple[str, ...]:
    """Return which fields of a webhook to change."""
    paths = set(request.update_mask.paths)
    if not paths or not paths <= set(PATHS):
        raise invalid_field("update_mask", f"must name some of {', '.join(PATHS)}")
    return tuple(path for path in PATHS if path in paths)


def webhook(found: Webhook) -> webhook_pb2.Webhook:
    """Return a webhook's message."""
    message = webhook_pb2.Webhook(
        name=str(found.name),
        url=found.url,
        filter=found.filter,
        description=found.description,
        disabled=found.disabled,
        etag=str(found.revision),
        creator=found.creator,
    )
    stamp(message.create_time, found.create_time)
    stamp(message.update_time, found.update_time)
    return message


def delivery(found: Delivery) -> webhook_pb2.WebhookDelivery:
    """Return a delivery's message."""
    message = webhook_pb2.WebhookDelivery(
        name=str(found.name),
        type=found.kind,
        subject=found.subject,
        state=webhook_pb2.WebhookDeliveryState.Value(f"WEBHOOK_DELIVERY_STATE_{found.state}"),
        attempt_count=found.attempt_count,
        response_status=found.response_status,
        problem=found.problem,
    )
    stamp(message.next_attempt_time, found.next_attempt_time)
    stamp(message.create_time, found.create_time)
    stamp(message.attempt_time, found.attempt_time)
    return message
