"""Delegations: renewed while whoever ordered the build has the rights, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from modelyard import AsyncClient
from modelyard.builder.v1 import build_pb2
from modelyard.metadata.v1 import (
    project_pb2,
    project_service_pb2,
    project_service_pb2_grpc,
    token_pb2,
)

from services.builder.settings import BuilderSettings
from tests.contract.builder.stack import Stack, running
from tests.contract.builder.yard import Yard, refused, until


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Stack]:
    """Services whose delegations last for two seconds."""
    url = f"sqlite:///{tmp_path / 'builder.db'}"
    settings = BuilderSettings(database_url=url, lease_seconds=30.0, tick_seconds=0.1)
    async with running(tmp_path, builder=settings, delegation_seconds=2.0) as stack:
        yield stack


async def test_delegations_are_renewed(hasty: Stack) -> None:
    async with Yard.open(hasty) as yard:
        await yard.order()
        taken = await yard.take()

        async def renewed() -> bool:
            return bool((await yard.extend(taken.lease)).delegation != taken.delegation)

        await until(renewed)
        await yard.pass_phases(taken.lease)
        assert await yard.register(taken.lease)


async def test_lost_rights_end_the_build(hasty: Stack) -> None:
    async with Yard.open(hasty) as yard, grpc.aio.insecure_channel(hasty.address) as channel:
        projects = project_service_pb2_grpc.ProjectServiceStub(channel)
        grant = token_pb2.Grant(project="projects/default", role=project_pb2.ROLE_BUILDER)
        token = token_pb2.Token(principal="user:ada", grants=[grant])
        created = await yard.admin(
            projects.CreateToken, project_service_pb2.CreateTokenRequest(token=token)
        )
        async with AsyncClient(hasty.address, token=created.secret) as ada:
            order = await ada.builds.create(hasty.data / "source", model="churn")
        taken = await yard.take()
        assert taken.build.creator == "user:ada"
        await yard.admin(
            projects.RevokeToken,
            project_service_pb2.RevokeTokenRequest(name=created.token.name),
        )

        async def failed() -> bool:
            return (await yard.get(order.name)).state == build_pb2.BUILD_STATE_FAILED

        await until(failed)
        assert (await yard.get(order.name)).failure.reason == "RIGHT_LOST"
        await refused(yard.extend(taken.lease), "LEASE_LOST")
