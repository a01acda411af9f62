"""Clients that ask for predictions without pause, and count every answer and every failure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

from tests.rpc.agent.bundles import infer_body

Client = Callable[[int, Counter[str], asyncio.Event], Coroutine[Any, Any, None]]


def grpc_request(*row: float, model: str = "sum") -> pb.ModelInferRequest:
    """Return an infer request for one row."""
    request = pb.ModelInferRequest(model_name=model, id="q")
    tensor = request.inputs.add(name="x", datatype="FP64", shape=[1, len(row)])
    tensor.contents.fp64_contents.extend(row)
    return request


async def http_kept(port: int, answers: Counter[str], stop: asyncio.Event) -> None:
    """Ask over one HTTP connection."""
    async with httpx.AsyncClient(timeout=20) as client:
        while not stop.is_set():
            await _post(client, port, answers)


async def http_new(port: int, answers: Counter[str], stop: asyncio.Event) -> None:
    """Ask over a new HTTP connection each time."""
    headers = {"connection": "close"}
    async with httpx.AsyncClient(timeout=20, headers=headers) as client:
        while not stop.is_set():
            await _post(client, port, answers)


async def grpc_kept(port: int, answers: Counter[str], stop: asyncio.Event) -> None:
    """Ask over one gRPC channel."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        while not stop.is_set():
            await _call(stub, answers)


async def grpc_new(port: int, answers: Counter[str], stop: asyncio.Event) -> None:
    """Ask over a new gRPC connection each time."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    while not stop.is_set():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
            await _call(pb_grpc.GRPCInferenceServiceStub(channel), answers)


@asynccontextmanager
async def traffic(port: int, clients: list[Client]) -> AsyncIterator[Counter[str]]:
    """Run clients while the block runs; yields the answers, by protocol and version or failure."""
    answers: Counter[str] = Counter()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(client(port, answers, stop))
        try:
            yield answers
        finally:
            stop.set()


async def _post(client: httpx.AsyncClient, port: int, answers: Counter[str]) -> None:
    try:
        url = f"http://127.0.0.1:{port}/v2/models/sum/infer"
        answer = await client.post(url, json=infer_body(1, 2))
    except httpx.HTTPError as error:
        answers[f"failed: {error!r}"] += 1
        return
    if answer.status_code != 200:
        answers[f"failed: {answer.status_code} {answer.text}"] += 1
        return
    assert answer.headers["modelyard-version"] == answer.json()["model_version"]
    answers[f"http {answer.json()['model_version']}"] += 1


async def _call(stub: pb_grpc.GRPCInferenceServiceStub, answers: Counter[str]) -> None:
    try:
        answer = await stub.ModelInfer(grpc_request(1, 2), timeout=20)  # type: ignore[misc]  # aio
    except grpc.aio.AioRpcError as error:
        answers[f"failed: {error.code()} {error.details()}"] += 1
    else:
        answers[f"grpc {answer.model_version}"] += 1
