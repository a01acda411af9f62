"""`modelyard webhooks`: who is told of changes, and what became of it."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.options import Description, NewDescription
from modelyard.cli.render import leaf, moment, show_list, show_one, state

if TYPE_CHECKING:
    from modelyard.metadata.v1.webhook_pb2 import Webhook, WebhookDelivery

Filter = Annotated[
    str | None, typer.Option(help="Which changes, e.g. 'type = ALIAS_MOVED'; else all.")
]


def register(group: typer.Typer) -> None:
    """Add `webhooks` to the command line."""
    _register_webhooks(group)
    _register_deliveries(group)


def _register_webhooks(group: typer.Typer) -> None:
    @group.command("list")
    def list_webhooks() -> None:
        """List webhooks."""
        show_list(
            client().webhooks.list(),
            {
                "WEBHOOK": lambda w: leaf(w.name),
                "URL": lambda w: w.url,
                "FILTER": lambda w: w.filter,
                "STATE": lambda w: "disabled" if w.disabled else "active",
                "CREATED": lambda w: moment(w.create_time),
            },
        )

    @group.command("create")
    def create_webhook(
        webhook: str, url: str, filter: Filter = None, description: Description = ""
    ) -> None:
        """Create a webhook; its secret is shown once."""
        made = client().webhooks.create(webhook, url, filter=filter or "", description=description)
        show_one(made, {"webhook": made.webhook.name, "secret": made.secret})

    @group.command("update")
    def update_webhook(
        webhook: str,
        url: Annotated[str | None, typer.Option(help="The new one.")] = None,
        filter: Filter = None,
        description: NewDescription = None,
        disabled: Annotated[
            bool | None, typer.Option("--disable/--enable", help="Let it rest, or go on.")
        ] = None,
    ) -> None:
        """Change a webhook, or let it rest: what happens then is not delivered later."""
        changed = client().webhooks.update(
            webhook, url=url, filter=filter, description=description, disabled=disabled
        )
        _show(changed)

    @group.command("delete")
    def delete_webhook(webhook: str) -> None:
        """Delete a webhook with its deliveries."""
        client().webhooks.delete(webhook)


def _register_deliveries(group: typer.Typer) -> None:
    @group.command("test")
    def test_webhook(webhook: str) -> None:
        """Have a test event posted."""
        _show_delivery(client().webhooks.test(webhook))

    @group.command("deliveries")
    def list_deliveries(webhook: str) -> None:
        """List what was delivered, newest first, and what was not."""
        show_list(
            client().webhooks.deliveries(webhook),
            {
                "DELIVERY": lambda d: leaf(d.name),
                "TYPE": lambda d: d.type,
                "SUBJECT": lambda d: d.subject,
                "STATE": _state,
                "TRIES": lambda d: d.attempt_count,
                "PROBLEM": lambda d: d.problem,
                "NEXT TRY": lambda d: moment(d.next_attempt_time),
                "CHANGED": lambda d: moment(d.create_time),
            },
        )

    @group.command("redeliver")
    def redeliver(
        delivery: Annotated[str, typer.Argument(help="Such as audit/d12…, or its full name.")],
    ) -> None:
        """Deliver something once more, whatever became of it."""
        _show_delivery(client().webhooks.redeliver(delivery))


def _show(webhook: Webhook) -> None:
    fields = {
        "webhook": webhook.name,
        "url": webhook.url,
        "filter": webhook.filter,
        "description": webhook.description,
        "state": "disabled" if webhook.disabled else "active",
    }
    show_one(webhook, fields)


def _show_delivery(delivery: WebhookDelivery) -> None:
    fields = {"delivery": delivery.name, "type": delivery.type, "state": _state(delivery)}
    show_one(delivery, fields)


def _state(delivery: WebhookDelivery) -> str:
    from modelyard.metadata.v1 import webhook_pb2  # noqa: PLC0415 - `--help` waits not

    return state(webhook_pb2.WebhookDeliveryState, delivery.state)
