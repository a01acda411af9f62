"""Several model servers of one variant, copies of requests, and what Envoy counts."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import httpx
import psutil
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

from services.deployer.agent.data_plane import VariantKey
from services.deployer.rollouts.plans import HeaderMatch, ServingSpec, Traffic
from tests.rpc.agent.bundles import infer_body, until
from tests.rpc.agent.test_data_plane import ENVIRONMENT, INFER, started_for, yard
from tests.rpc.agent.traffic import Client, grpc_kept, grpc_request, http_kept, http_new, traffic

if TYPE_CHECKING:
    from tests.rpc.agent.test_data_plane import Yard

__all__ = ["yard"]  # the fixture
THREE = ServingSpec(replica_count=3)
EJECTED_AFTER = 20


def servers_of(yard: Yard) -> list[psutil.Process]:
    """Return the model servers of revision 1 that run."""
    return started_for(yard.folder / "bundle-1", "modelyard.serving")


async def until_counted(yard: Yard, revision: int, requests: int) -> Traffic:
    """Wait until so many requests of a revision, and their latencies, are counted."""
    async with asyncio.timeout(20):
        while True:
            counted = (await yard.plane.traffic())[VariantKey(ENVIRONMENT, "sum", revision)]
            if counted.buckets and counted.buckets[-1][1] >= requests:
                return counted
            await asyncio.sleep(0.05)


async def test_a_replica_that_dies_fails_no_request_and_comes_back(yard: Yard) -> None:
    variant = yard.variant(1, serving=THREE)
    await yard.plane.ensure(variant)
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 100})
    assert yard.plane.ready()[variant.key].ready_count == 3
    servers = servers_of(yard)
    clients: list[Client] = [http_kept, http_new, grpc_kept]
    async with traffic(yard.port, clients) as answers:
        await until(lambda: min(answers["http 1"], answers["grpc 1"]) > 20)
        os.kill(servers[0].pid, signal.SIGSTOP)  # it answers no more, but for what it has in hand
        os.kill(servers[0].pid, signal.SIGKILL)
        await until(lambda: yard.plane.ready()[variant.key].ready_count == 2)
        await until(lambda: yard.plane.ready()[variant.key].ready_count == 3)
        assert yard.plane.ready()[variant.key].restart_count == 1
    failed = {what: count for what, count in answers.items() if what.startswith("failed")}
    print(f"{sum(answers.values())} requests: {dict(answers)}")
    # What the dead one had in hand is lost: a prediction is never made twice.
    assert sum(failed.values()) <= len(clients)


async def test_a_replica_that_only_fails_is_left_out_for_a_while(yard: Yard) -> None:
    await yard.plane.ensure(yard.variant(1, entry="Picky", serving=ServingSpec(replica_count=2)))
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 100})
    failing = (await yard.post(INFER, 0, 0)).json()["outputs"][0]["data"][0]
    codes: list[int] = []
    async with asyncio.timeout(20):
        while codes.count(500) < EJECTED_AFTER:
            codes.append((await yard.post(INFER, failing, 0)).status_code)
    assert 200 in codes  # the other one had its share
    assert {(await yard.post(INFER, failing, 0)).status_code for _ in range(30)} == {200}


async def test_replicas_come_and_those_that_go_answer_what_they_have(yard: Yard) -> None:
    variant = yard.variant(1)
    await yard.plane.ensure(variant)
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 100})
    yard.plane.scale(variant.key, 2, "more to do")
    await until(lambda: yard.plane.ready()[variant.key].ready_count == 2)
    assert yard.plane.ready()[variant.key].scaling == "more to do"
    slow = [asyncio.create_task(yard.post(INFER, 1_500, 0)) for _ in range(2)]  # one each
    while await yard.plane.envoy.active_requests(str(variant.key)) < len(slow):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    yard.plane.scale(variant.key, 1, "less to do")
    await until(lambda: yard.plane.ready()[variant.key].ready_count == 1)
    assert not any(task.done() for task in slow)
    assert [answer.status_code for answer in await asyncio.gather(*slow)] == [200, 200]
    await until(lambda: len(servers_of(yard)) == 1)


async def test_a_shadow_gets_copies_and_never_answers(yard: Yard) -> None:
    await yard.deploy(1)
    shadow = yard.variant(2, mirror_percent=100)
    await yard.plane.ensure(shadow)
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 100, 2: 0})
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{yard.port}{INFER}"
        for _ in range(200):
            answer = await client.post(url, json=infer_body(1, 2))
            assert answer.headers["modelyard-version"] == "1"
    assert (await until_counted(yard, 1, 200)).request_count == 200
    assert (await until_counted(yard, 2, 200)).request_count == 200
    await yard.plane.remove(shadow.key)
    assert (await yard.post()).json()["model_version"] == "1"


async def test_a_preview_answers_only_what_has_its_header(yard: Yard) -> None:
    await yard.deploy(1)
    preview = yard.variant(2, header_match=HeaderMatch("x-variant", "new"))
    await yard.plane.ensure(preview)
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 100, 2: 0})
    headers: list[tuple[tuple[str, str], ...]] = [
        (("x-variant", "new"),),
        (("x-variant", "newer"),),
        (),
    ]
    async with httpx.AsyncClient(timeout=20) as client, yard.channel() as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)

        async def versions() -> tuple[list[str], list[str]]:
            url = f"http://127.0.0.1:{yard.port}{INFER}"
            http = [await client.post(url, json=infer_body(1, 2), headers=h) for h in headers]
            over_grpc = [await stub.ModelInfer(grpc_request(1, 2), metadata=h) for h in headers]  # type: ignore[misc]  # aio
            return [a.json()["model_version"] for a in http], [a.model_version for a in over_grpc]

        assert await versions() == (["2", "1", "1"], ["2", "1", "1"])
        assert (await until_counted(yard, 2, 2)).request_count == 2
        assert await yard.plane.drain(preview.key)
        assert await versions() == (["1", "1", "1"], ["1", "1", "1"])


async def test_failures_and_latencies_are_counted(yard: Yard) -> None:
    await yard.deploy(1)
    async with traffic(yard.port, [http_kept, grpc_kept]) as answers:
        await until(lambda: min(answers["http 1"], answers["grpc 1"]) > 20)
    for _ in range(3):
        assert (await yard.post(INFER, -1, 0)).status_code == 500
    assert (await yard.post(INFER, 400, 0)).status_code == 200
    counted = await until_counted(yard, 1, sum(answers.values()) + 4)
    assert counted.error_count == 3
    assert counted.request_count == sum(answers.values()) + 4
    assert 300 <= counted.latency(1.0) <= 600
    assert counted.latency(0.5) < 100
