"""Secrets: set, changed, deleted, kept encrypted, and given to the holder of a lease alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from modelyard import AsyncClient, errors
from modelyard.builder.v1 import build_pb2, secret_service_pb2, secret_service_pb2_grpc
from modelyard.metadata.v1 import (
    project_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
    token_pb2,
)

from services.builder.secrets import store
from services.common.sql.engines import create_engine
from tests.contract.builder.yard import Yard, refused

VALUE = "correct horse battery staple"
NAME = "projects/default/secrets/warehouse"


async def denied(call: Awaitable[Any], reason: str) -> None:
    with pytest.raises(errors.ModelyardError) as caught:
        await call
    assert caught.value.reason == reason
    assert VALUE not in str(caught.value)


@asynccontextmanager
async def someone(yard: Yard, role: project_pb2.Role.ValueType) -> AsyncIterator[AsyncClient]:
    """Connect as a user with a role in the project, which is gone afterwards."""
    async with grpc.aio.insecure_channel(yard.stack.address) as channel:
        projects = project_service_pb2_grpc.ProjectServiceStub(channel)
        token = token_pb2.Token(
            principal="user:ada", grants=[token_pb2.Grant(project="projects/default", role=role)]
        )
        created = await yard.admin(
            projects.CreateToken, project_service_pb2.CreateTokenRequest(token=token)
        )
        address, secret = yard.stack.address, created.secret
        async with AsyncClient(address, token=secret, project="default") as client:
            yield client
        revoke = project_service_pb2.RevokeTokenRequest(name=created.token.name)
        await yard.admin(projects.RevokeToken, revoke)


async def test_a_secret_is_set_changed_and_deleted_and_its_value_never_shown(
    yard: Yard, backend: tuple[str, str]
) -> None:
    secrets = yard.client.secrets
    made = await secrets.create("warehouse", VALUE, description="reads")
    assert (made.name, made.description, made.updater) == (NAME, "reads", "user:admin")
    await denied(secrets.create("warehouse", "x"), "RESOURCE_EXISTS")
    changed = await secrets.update("warehouse", description="reads the warehouse")
    assert changed.update_time == made.update_time
    await denied(secrets.update("warehouse", value="x", etag=made.etag), "ETAG_MISMATCH")
    again = await secrets.set("warehouse", VALUE + "!")
    assert again.description == "reads the warehouse"
    assert again.update_time.ToNanoseconds() > made.update_time.ToNanoseconds()
    await secrets.set("another", "1")
    listed = [secret async for secret in secrets.list()]
    assert [secret.name.rpartition("/")[2] for secret in listed] == ["another", "warehouse"]
    engine = create_engine(backend[0])
    with engine.connect() as connection:
        rows = connection.execute(store.SECRETS.select()).all()
    engine.dispose()
    assert not [row for row in rows if VALUE in str(row) or VALUE.encode() in row.sealed_value]
    assert VALUE not in str([*listed, made, changed, again])
    await denied(secrets.delete("warehouse", etag=made.etag), "ETAG_MISMATCH")
    await secrets.delete("warehouse", etag=again.etag)
    await denied(secrets.get("warehouse"), "RESOURCE_NOT_FOUND")
    await denied(secrets.delete("warehouse"), "RESOURCE_NOT_FOUND")
    for value in ("", "nul\0", "ä" * 40_000):
        await denied(secrets.create("warehouse", value), "INVALID_FIELD")
    await denied(secrets.create("warehouse", "x", description="x" * 5_000), "INVALID_FIELD")
    await denied(secrets.get("projects/default/secrets/Bad"), "INVALID_NAME")


async def test_only_admins_set_secrets_and_writes_can_be_repeated(yard: Yard) -> None:
    await yard.client.secrets.set("warehouse", VALUE)
    async with someone(yard, project_pb2.ROLE_DEPLOYER) as ada:
        assert [secret.name async for secret in ada.secrets.list()] == [NAME]
        for call in (
            ada.secrets.create("mine", "x"),
            ada.secrets.update("warehouse", value="x"),
            ada.secrets.delete("warehouse"),
        ):
            await denied(call, "RIGHT_MISSING")
    await yard.client.secrets.delete("warehouse")
    async with grpc.aio.insecure_channel(yard.stack.address) as channel:
        stub = secret_service_pb2_grpc.SecretServiceStub(channel)
        create = secret_service_pb2.CreateSecretRequest(
            parent="projects/default", secret_id="warehouse", value=VALUE, request_id="one"
        )
        answers = await asyncio.gather(*(yard.admin(stub.CreateSecret, create) for _ in range(3)))
        assert len({answer.SerializeToString() for answer in answers}) == 1
        create.value = "another"
        await refused(yard.admin(stub.CreateSecret, create), "REQUEST_ID_REUSED")
        pages = secret_service_pb2.ListSecretsRequest(parent="projects/default", page_size=1)
        await yard.client.secrets.set("zebra", "1")
        first = await yard.admin(stub.ListSecrets, pages)
        pages.page_token = first.next_page_token
        second = await yard.admin(stub.ListSecrets, pages)
        assert [first.secrets[0].name, len(second.secrets)] == [NAME, 1]
        assert not second.next_page_token
        pages.page_token += "x"
        await refused(yard.admin(stub.ListSecrets, pages), "INVALID_PAGE_TOKEN")
        delete = secret_service_pb2.DeleteSecretRequest(name=NAME, request_id="two")
        for _ in range(2):
            await yard.admin(stub.DeleteSecret, delete)


async def test_the_holder_of_the_lease_gets_the_values_of_what_the_build_names(yard: Yard) -> None:
    await yard.client.secrets.set("warehouse", VALUE)
    await yard.client.secrets.set("other", "not for this build")
    variable = build_pb2.SecretVariable(variable="PASSWORD", secret=NAME)
    order = await yard.order(secrets=[variable])
    taken = await yard.take()
    assert await yard.secrets(taken.lease) == {NAME: VALUE}
    assert VALUE not in str(await yard.get(order.name))
    await yard.client.secrets.set("warehouse", "new")
    assert await yard.secrets(taken.lease) == {NAME: "new"}
    await yard.client.secrets.delete("warehouse")
    await refused(yard.secrets(taken.lease), "RESOURCE_NOT_FOUND")
    await yard.end(taken.lease, "WORKER_LOST")
    await yard.take("w2")
    await refused(yard.secrets(taken.lease), "LEASE_LOST")
    missing = build_pb2.BuildSpec(source=yard.source, secrets=[variable])
    await refused(yard.create(missing), "RESOURCE_NOT_FOUND")
    await yard.cancel(order.name)


async def test_who_lost_the_rights_gets_no_values(yard: Yard) -> None:
    await yard.client.secrets.set("warehouse", VALUE)
    async with someone(yard, project_pb2.ROLE_BUILDER) as ada:
        order = await ada.builds.create(
            yard.source, model="churn", secrets={"PASSWORD": "warehouse"}
        )
        taken = await yard.take()
        assert await yard.secrets(taken.lease) == {NAME: VALUE}
    await refused(yard.secrets(taken.lease), "RIGHT_MISSING")
    assert (await yard.get(order.name)).failure.reason == "RIGHT_LOST"
    await refused(yard.secrets(taken.lease), "LEASE_LOST")


async def test_a_fetched_source_is_kept_and_data_must_be_stored(yard: Yard) -> None:
    git = build_pb2.GitSource(url="https://git.example/churn.git", ref="main")
    origin = build_pb2.SourceOrigin(repository=git.url, commit="c" * 40, branch="main")
    order = await yard.create(build_pb2.BuildSpec(git=git))
    first = await yard.take()
    assert (first.build.source, first.build.origin.commit) == ("", "")
    missing = yard.source[:-64] + "0" * 64
    await refused(yard.report_source(first.lease, missing, origin), "BYTES_MISSING")
    for _ in range(2):
        await yard.report_source(first.lease, yard.source, origin)
    await refused(yard.report_source(first.lease, missing, origin), "WRONG_STATE")
    await yard.end(first.lease, "WORKER_LOST")
    second = await yard.take("w2")
    assert (second.build.source, second.build.origin) == (yard.source, origin)
    assert (await yard.get(order.name)).origin == origin
    await refused(yard.report_source(first.lease, yard.source, origin), "LEASE_LOST")
    plain = await yard.order()
    assert plain.source == yard.source
    third = await yard.take("w3")
    await refused(yard.report_source(third.lease, missing, origin), "WRONG_STATE")
    await yard.client.datasets.create_version("prices", "a" * 64, artifact=yard.source)
    await yard.client.datasets.create_version("prices", "b" * 64)
    names = [f"projects/default/datasets/prices/versions/{number}" for number in (1, 2, 3)]
    data = [build_pb2.DataInput(name="train", dataset_version=name) for name in names]
    order = await yard.order(data=[data[0]])
    assert order.spec.data == [data[0]]
    await refused(yard.order(data=[data[1]]), "BYTES_MISSING")
    error = await refused(yard.order(data=[data[2]]), "RESOURCE_NOT_FOUND")
    assert error.metadata["resource"] == names[2]
