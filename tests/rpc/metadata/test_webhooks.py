"""Webhooks over a kill of their server, and from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from threading import Event

import pytest
from modelyard.metadata.v1 import webhook_pb2
from standardwebhooks import Webhook

from tests.receiver import Post, Receiver, receiving
from tests.rpc.metadata.conftest import Command, Services, running, until

CHANGES = 20
KILLED_AT = (10,)
SETTINGS = {
    "MODELYARD_METADATA_WEBHOOK_NETWORKS": "127.0.0.0/8",
    "MODELYARD_METADATA_WEBHOOK_TIMEOUT_SECONDS": "1",
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running(tmp_path_factory.mktemp("services"), **SETTINGS) as services:
        yield services


def test_nothing_is_lost_over_a_kill(services: Services, receiver: Receiver) -> None:
    killed = {count: Event() for count in KILLED_AT}

    def answer(post: Post) -> int:
        if held := killed.get(len(receiver.posts)):
            held.wait()
        return 204

    receiver.answer = answer
    with services.client() as client:
        secret = client.webhooks.create("audit", receiver.url("/audit")).secret
        for number in range(CHANGES):
            client.models.create(f"killed-{number}")
    for count in KILLED_AT:
        receiver.until(count, "/audit")
        services.kill()
        killed[count].set()
        services.start(**SETTINGS)
    with services.client() as client:
        until(lambda: _all_delivered(list(client.webhooks.deliveries("audit"))))
        client.webhooks.delete("audit")
    posts = receiver.at("/audit")
    told = [Webhook(secret).verify(post.body, post.headers) for post in posts]
    places = [int(event["id"]) for event in told]
    assert {event["subject"] for event in told} == {
        f"projects/default/models/killed-{number}" for number in range(CHANGES)
    }
    assert places == sorted(places)
    assert len(posts) == CHANGES + len(KILLED_AT)  # what was in progress comes again
    assert len({post.headers["webhook-id"] for post in posts}) == CHANGES


def _all_delivered(deliveries: list[webhook_pb2.WebhookDelivery]) -> bool:
    delivered = webhook_pb2.WebhookDeliveryState.WEBHOOK_DELIVERY_STATE_DELIVERED
    return len(deliveries) == CHANGES and all(d.state == delivered for d in deliveries)


def test_webhooks_on_the_command_line(command: Command, receiver: Receiver) -> None:
    def answer(post: Post) -> int:
        return 204 if len(receiver.posts) > 1 else 410

    receiver.answer = answer
    made = command(
        "webhooks", "create", "audit", receiver.url(), "--filter", "type = MODEL_CREATED"
    )
    assert "whsec_" in made
    listed = command("webhooks", "list")
    assert receiver.url() in listed
    assert "whsec_" not in listed
    assert "webhook.test" in command("webhooks", "test", "audit")
    until(lambda: "FAILED" in command("webhooks", "deliveries", "audit"))
    assert "disabled" in command("webhooks", "list")
    assert "active" in command("webhooks", "update", "audit", "--enable", "--filter", "")
    (failed,) = json.loads(command("webhooks", "deliveries", "audit", "-o", "json"))
    delivery = failed["name"].rpartition("/")[2]
    assert "PENDING" in command("webhooks", "redeliver", f"audit/{delivery}")
    until(lambda: "DELIVERED" in command("webhooks", "deliveries", "audit"))
    command("webhooks", "delete", "audit")
    assert "audit" not in command("webhooks", "list")
