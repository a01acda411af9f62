"""Webhooks on both databases, to a real HTTP server; signatures are verified by another's code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from modelyard import (
    AbortedError,
    AlreadyExistsError,
    AsyncClient,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
)
from modelyard.metadata.v1 import project_pb2, token_pb2, webhook_pb2
from modelyard.metadata.v1 import webhook_service_pb2 as pb
from standardwebhooks import Webhook

from services.common.sql.database import Database, Transaction
from services.common.sql.outbox import read_events
from services.metadata.changes import Change, ChangeKind, publish, topic
from services.metadata.settings import MetadataSettings
from services.metadata.watching.trimming import Trimming
from services.metadata.webhooks import delivery_store
from services.metadata.webhooks.store import least_cursor
from services.metadata.wiring import MIGRATIONS, now
from tests.contract.metadata.desk import PROJECT, Desk, House, eventually, metadata_running
from tests.receiver import Post, Receiver, receiving

STATE = webhook_pb2.WebhookDeliveryState
DELIVERED = STATE.WEBHOOK_DELIVERY_STATE_DELIVERED
FAILED = STATE.WEBHOOK_DELIVERY_STATE_FAILED
TRIES = 3
COUNT = 24


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def timeout() -> float:
    """How many seconds an address has to answer: on a busy machine nothing may want for time."""
    return 60.0


@pytest.fixture
def settings(settings: MetadataSettings, timeout: float) -> MetadataSettings:
    return replace(
        settings,
        webhook_networks="127.0.0.1/32",
        webhook_retry_seconds=0.01,
        webhook_attempts=TRIES,
        webhook_timeout_seconds=timeout,
    )


@asynccontextmanager
async def running(settings: MetadataSettings, port: int) -> AsyncIterator[AsyncClient]:
    async with metadata_running(settings, port) as house, client_of(house) as client:
        yield client


def client_of(house: House, credential: str = "") -> AsyncClient:
    secret = credential or house.secret("admin")
    return AsyncClient(f"127.0.0.1:{house.port}", token=secret, project="default")


@pytest.fixture
async def client(house: House) -> AsyncIterator[AsyncClient]:
    async with client_of(house) as client:
        yield client


async def settled(
    client: AsyncClient, webhook: str, state: Any, count: int = 1
) -> list[webhook_pb2.WebhookDelivery]:
    """Wait until a webhook has so many deliveries, all in a state."""
    found: list[webhook_pb2.WebhookDelivery] = []

    async def is_settled() -> bool:
        found[:] = [one async for one in client.webhooks.deliveries(webhook)]
        return len(found) == count and all(one.state == state for one in found)

    await eventually(is_settled)
    return found


async def test_changes_arrive_signed_in_order_and_only_those_wanted(
    client: AsyncClient, receiver: Receiver
) -> None:
    wanted = 'type = MODEL_CREATED AND model:"churn"'
    made = await client.webhooks.create("one", receiver.url(), filter=wanted)
    await client.webhooks.create("broken", receiver.url("/moved"))
    names = [f"churn-{number}" for number in range(12)]
    for name in names:
        await client.models.create(name)
    await client.models.create("other")
    await client.models.update(names[0], description="new")
    deliveries = await settled(client, "one", DELIVERED, len(names))
    posts = receiver.at("/hook")
    told = [Webhook(made.secret).verify(post.body, post.headers) for post in posts]
    assert [event["subject"] for event in told] == [f"{PROJECT}/models/{name}" for name in names]
    assert [d.subject for d in deliveries] == [event["subject"] for event in reversed(told)]
    assert deliveries[-1].name.endswith(f"/deliveries/{posts[0].headers['webhook-id']}")
    assert posts[0].headers["content-type"] == "application/cloudevents+json"
    event = told[0]
    assert (event["specversion"], event["source"]) == ("1.0", PROJECT)
    assert event["type"] == "dev.modelyard.model.created"
    assert event["data"] == {"name": event["subject"], "actor": "user:admin"}
    await client.webhooks.test("one")
    assert (await settled(client, "one", DELIVERED, len(names) + 1))[0].type == "webhook.test"


@pytest.mark.parametrize("timeout", [1.0])
async def test_failures_are_tried_again_and_given_up_and_delay_nobody(
    client: AsyncClient, receiver: Receiver
) -> None:
    def answer(post: Post) -> int:
        if post.path == "/slow":
            receiver.closing.wait()
        if post.path == "/flaky":
            return 200 if len(receiver.at("/flaky")) == TRIES else 503
        return {"/dead": 500, "/gone": 410, "/moved": 302}.get(post.path, 200)

    receiver.answer = answer
    for name in ("slow", "dead", "gone", "moved", "flaky", "swift"):
        await client.webhooks.create(name, receiver.url(f"/{name}"))
    await client.models.create("churn")
    await settled(client, "swift", DELIVERED)
    await settled(client, "flaky", DELIVERED)
    assert len({post.headers["webhook-id"] for post in receiver.at("/flaky")}) == 1
    problems = {}
    for name in ("dead", "gone", "moved", "slow"):
        (failed,) = await settled(client, name, FAILED)
        problems[name] = (failed.attempt_count, failed.response_status, failed.problem)
    assert problems == {
        "dead": (TRIES, 500, "answered 500"),
        "gone": (1, 410, "answered 410"),
        "moved": (TRIES, 302, "answered 302; redirects are not followed"),
        "slow": (TRIES, 0, "no answer within 1 s"),
    }
    resting = [hook.name async for hook in client.webhooks.list() if hook.disabled]
    assert resting == [f"{PROJECT}/webhooks/gone"]
    assert not receiver.at("/elsewhere")
    receiver.answer = lambda _: 200
    (dead,) = [one async for one in client.webhooks.deliveries("dead")]
    assert (await client.webhooks.redeliver(dead)).attempt_count == TRIES
    (dead,) = await settled(client, "dead", DELIVERED)
    assert (dead.attempt_count, dead.problem) == (TRIES + 1, "")


async def test_the_life_of_a_webhook(client: AsyncClient, admin: Desk, receiver: Receiver) -> None:
    made = await client.webhooks.create("one", receiver.url(), description="audit")
    assert made.secret.startswith("whsec_")
    with pytest.raises(AlreadyExistsError):
        await client.webhooks.create("one", receiver.url())
    with pytest.raises(InvalidArgumentError):
        await client.webhooks.create("two", receiver.url(), filter="colour = RED")
    with pytest.raises(InvalidArgumentError):
        await client.webhooks.create("two", "https://10.0.0.1/")
    (listed,) = [hook async for hook in client.webhooks.list()]
    assert listed == made.webhook
    resting = await client.webhooks.update("one", disabled=True, etag=listed.etag)
    assert (resting.description, resting.disabled) == ("audit", True)
    with pytest.raises(AbortedError):
        await client.webhooks.update("one", disabled=False, etag=listed.etag)
    await client.models.create("unheard")
    await client.webhooks.update("one", disabled=False)
    await client.models.create("heard")
    (heard,) = await settled(client, "one", DELIVERED)
    assert heard.subject == f"{PROJECT}/models/heard"
    contributor = token_pb2.Grant(project=PROJECT, role=project_pb2.Role.ROLE_DEPLOYER)
    other = await admin.new_caller("user:other", contributor)
    async with client_of(admin.house, other.credential) as others:
        for refused in (
            others.webhooks.create("two", receiver.url()),
            others.webhooks.update("one", disabled=True),
            others.webhooks.test("one"),
            others.webhooks.redeliver(heard),
            others.webhooks.delete("one"),
            anext(others.webhooks.list()),
            anext(others.webhooks.deliveries("one")),
        ):
            with pytest.raises(PermissionDeniedError):
                await refused
    await client.webhooks.delete("one")
    with pytest.raises(NotFoundError):
        await client.webhooks.redeliver(heard)


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_a_secret_is_shown_once(client: AsyncClient, receiver: Receiver) -> None:
    from modelyard._transport.calls import call

    request = pb.CreateWebhookRequest(
        parent=PROJECT,
        webhook_id="one",
        webhook=webhook_pb2.Webhook(url=receiver.url()),
        request_id="11111111-1111-4111-8111-111111111111",
    )
    create = call(request, pb.CreateWebhookResponse, lambda r: r.secret)
    assert await client.connection.call(create)
    with pytest.raises(FailedPreconditionError) as raised:
        await client.connection.call(create)
    assert raised.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("settings", ["postgres"], indirect=True)
async def test_two_replicas_deliver_once_and_in_order(
    settings: MetadataSettings, artifact_port: int, receiver: Receiver
) -> None:
    async with (
        running(settings, artifact_port) as first,
        running(settings, artifact_port) as second,
    ):
        made = await first.webhooks.create("one", receiver.url())
        creations = ((first, second)[n % 2].models.create(f"m-{n}") for n in range(COUNT))
        await asyncio.gather(*creations)
        await settled(first, "one", DELIVERED, COUNT)
    told = [Webhook(made.secret).verify(post.body, post.headers) for post in receiver.posts]
    places = [int(event["id"]) for event in told]
    assert places == sorted(places)
    assert len(places) == COUNT


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
async def test_a_name_of_a_private_address_is_not_connected_to(
    settings: MetadataSettings, artifact_port: int, receiver: Receiver
) -> None:
    guarded = replace(settings, webhook_networks="", webhook_attempts=1)
    async with running(guarded, artifact_port) as client:
        with pytest.raises(InvalidArgumentError):
            await client.webhooks.create("plain", receiver.url(host="localhost"))
        await client.webhooks.create("local", f"https://localhost:{receiver.port}/")
        await client.models.create("churn")
        (failed,) = await settled(client, "local", FAILED)
    assert failed.problem == "its address is not public"
    assert receiver.posts == []


async def test_what_a_webhook_has_not_read_is_not_forgotten(
    settings: MetadataSettings, artifact_port: int, receiver: Receiver
) -> None:
    async with running(settings, artifact_port) as client:
        await client.webhooks.create("resting", receiver.url("/resting"), disabled=True)
        await client.webhooks.create("one", receiver.url())
        await client.models.create("read")
        await settled(client, "one", DELIVERED)
    database, none = Database.open(settings.database_url, migrations=MIGRATIONS), timedelta(0)
    try:
        changes = [Change(f"{PROJECT}/models/{name}") for name in ("a", "b", "c")]

        def tell(tx: Transaction) -> None:
            for change in changes:
                publish(tx, "default", ChangeKind.MODEL_CREATED, change)

        await database.write(tell)
        await Trimming(database, now, none, 0, none, least_cursor).trim()
        left = await database.read(lambda tx: read_events(tx.connection, topic("default"), 0))
        assert len(left) == 3
        trim = partial(delivery_store.trim_deliveries, before=now(), limit=10)
        assert await database.write(lambda tx: trim(tx.connection)) == 1
    finally:
        database.close()
    async with running(settings, artifact_port) as client:
        told = await settled(client, "one", DELIVERED, 3)
    assert [delivery.subject[-1] for delivery in told] == ["c", "b", "a"]
