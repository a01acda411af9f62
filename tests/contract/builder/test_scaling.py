"""A full queue and a real worker: it fills up to the limit, in order, and empties again."""

from __future__ import annotations

from pathlib import Path

import pytest
from modelyard.builder.v1 import build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.yard import Yard, until, write_source

MODEL = """
import modelyard


class Noop(modelyard.Model):
    example = {"x": [1.0]}

    def build(self, context):
        pass

    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.mark.parametrize(("count", "limit"), [(6, 2), pytest.param(20, 4, marks=pytest.mark.slow)])
async def test_workers_rise_to_the_limit_and_fall_to_none(
    stack: Stack, environments: Path, count: int, limit: int
) -> None:
    source = write_source(stack.data / "noop", model=MODEL)
    most = {"worker": 0, "limit": 0}
    async with Yard.open(stack) as yard:
        client = yard.client
        artifact = (await client.artifacts.push(source)).name
        await client.queue.set_limits(max_running=limit)
        orders = [
            await yard.create(
                build_pb2.BuildSpec(source=artifact, skip_tests=True, priority=n % 2 * 10),
                model=f"m{n % 3}",
            )
            for n in range(count)
        ]
        async with stack.worker(environments=environments, MODELYARD_WORKER_CONCURRENCY="8"):

            async def over() -> bool:
                standing = await client.queue.limits()
                for worker in await client.queue.workers():
                    most["worker"] = max(most["worker"], len(worker.builds))
                most["limit"] = max(most["limit"], standing.running_builds)
                return not (standing.running_builds or standing.queued_builds)

            await until(over, seconds=120)
            (worker,) = await client.queue.workers()
            assert list(worker.builds) == []
        builds = [await client.builds.get(order.name) for order in orders]
    assert {b.state for b in builds} == {build_pb2.BUILD_STATE_SUCCEEDED}
    assert most == {"worker": limit, "limit": limit}
    started = [b.name for b in sorted(builds, key=lambda b: b.start_time.ToNanoseconds())]
    expected = [o.name for o in sorted(orders, key=lambda o: -o.spec.priority)]
    assert started == expected
