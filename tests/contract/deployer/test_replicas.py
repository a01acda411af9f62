"""Several replicas on one database: each step is taken once, whoever dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from modelyard.deployer.v1 import deployment_pb2

from tests.contract.deployer.yard import obeying

if TYPE_CHECKING:
    from tests.contract.deployer.conftest import Start
    from tests.servers.valkey import ValkeyServer

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def is_alone(deployment: deployment_pb2.Deployment, revision: int) -> bool:
    return deployment.live_revision == revision and len(deployment.variants) == 1


async def test_two_replicas_take_each_step_once(start: Start, valkey: ValkeyServer) -> None:
    async with start(redis_url=valkey.url) as left, start(redis_url=valkey.url) as right:
        await left.ada.create_environment()
        async with obeying(right.controller):
            for version in (1, 2, 3):
                person = left.ada if version % 2 else right.ada
                await person.deploy(version)
                await left.ada.until(lambda d: is_alone(d, version))  # noqa: B023
        generations = [a.generation for a in right.controller.seen]
        assert generations == sorted(set(generations))
        # First version: start, shift, alone. The others: beside, shift, alone.
        assert generations[-1] == 9
