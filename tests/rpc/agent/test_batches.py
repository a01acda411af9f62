"""Requests that are predicted together: joined, taken apart, and none harmed by another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

from services.deployer.agent.model_server import ModelServerProcess
from services.deployer.rollouts.plans import Batching, ServingSpec
from tests.rpc.agent.bundles import infer_body, make_bundle, spec
from tests.rpc.agent.traffic import grpc_request

TOGETHER = Batching(16, delay_seconds=0.05)


@asynccontextmanager
async def serving(folder: Path, entry: str, workers: int = 1) -> AsyncIterator[ModelServerProcess]:
    serving = ServingSpec(worker_count=workers, batching=TOGETHER)
    given = replace(spec(make_bundle(folder / "bundle", entry=entry)), serving=serving)
    server = await ModelServerProcess.start(given, folder=folder / "server")
    try:
        await server.wait_ready(60)
        yield server
    finally:
        await server.stop(1)


def outputs(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


async def ask(server: ModelServerProcess, bodies: list[Any]) -> list[httpx.Response]:
    """Send requests at once."""
    url = f"http://127.0.0.1:{server.ports.http}/v2/models/sum/infer"
    async with httpx.AsyncClient(timeout=30) as client:
        return await asyncio.gather(*(client.post(url, json=body) for body in bodies))


@pytest.mark.parametrize("workers", [1, 2])
async def test_requests_that_wait_are_predicted_together(tmp_path: Path, workers: int) -> None:
    async with serving(tmp_path, "Together", workers) as server:
        answers = await ask(server, [infer_body(number, 1) for number in range(64)])
        found = [outputs(answer) for answer in answers]
        assert [each["total"] for each in found] == [[number + 1] for number in range(64)]
        sizes = [each["rows"][0] for each in found]
        assert max(sizes) <= TOGETHER.max_size
        assert sum(sizes) / len(sizes) > 2
        # None of these can be joined with another, or the model fails on it alone.
        odd = [infer_body(1), infer_body(1, 2, 3), infer_body(-1, 0), {"inputs": []}]
        mixed = await ask(server, [*odd, *(infer_body(number, 1) for number in range(16))])
        assert [answer.status_code for answer in mixed] == [200, 200, 500, 400] + [200] * 16
        assert outputs(mixed[1])["total"] == [6]
        assert [outputs(a)["total"] for a in mixed[4:]] == [[number + 1] for number in range(16)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            calls = [stub.ModelInfer(grpc_request(number, 5)) for number in range(8)]
            grpc_answers = [await call for call in calls]  # type: ignore[misc]  # aio
        totals = [answer.outputs[0].contents.fp64_contents[0] for answer in grpc_answers]
        assert totals == [number + 5 for number in range(8)]
        async with httpx.AsyncClient() as client:
            metrics = await client.get(f"http://127.0.0.1:{server.ports.http}/metrics")
        assert "modelyard_serving_batch_size_count 91.0" in metrics.text  # with the example


async def test_an_answer_that_cannot_be_taken_apart_is_made_for_each(tmp_path: Path) -> None:
    async with serving(tmp_path, "Whole") as server:
        answers = await ask(server, [infer_body(number, 1) for number in range(8)])
        assert [outputs(answer)["total"] for answer in answers] == [[n + 1] for n in range(8)]
