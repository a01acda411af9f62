"""Real model servers behind a real Envoy: routing, swaps under load, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

from services.deployer.agent.data_plane import Condition, DataPlane, Variant, VariantKey
from services.deployer.agent.envoy import ConfigRejectedError
from services.deployer.agent.envoy_admin import EnvoyAdmin
from services.deployer.agent.model_server import FailureReason, ModelServerError
from services.deployer.agent.routing import stat_name
from tests.rpc.agent.bundles import free_port, infer_body, make_bundle, until
from tests.rpc.agent.traffic import (
    Client,
    grpc_kept,
    grpc_new,
    grpc_request,
    http_kept,
    http_new,
    traffic,
)

ENVIRONMENT = "projects/default/environments/production"
INFER = "/v2/models/sum/infer"
STOCK_CLIENT = Path(__file__).with_name("stock_client.py")


class Yard:
    """A data plane with one environment, and bundles to serve in it."""

    def __init__(self, plane: DataPlane, folder: Path, port: int) -> None:
        self.plane = plane
        self.folder = folder
        self.port = port

    def variant(self, revision: int, *, entry: str = "Sum", **how: Any) -> Variant:
        bundle = self.folder / f"bundle-{revision}"
        if not bundle.exists():
            make_bundle(bundle, bias=10 * revision, entry=entry)
        key = VariantKey(ENVIRONMENT, "sum", revision)
        return Variant(key, str(revision), bundle, Path(sys.executable), **how)

    async def deploy(self, revision: int) -> VariantKey:
        """Start a revision, wait until it is ready and give it every request."""
        variant = self.variant(revision)
        await self.plane.ensure(variant)
        await self.plane.set_weights(ENVIRONMENT, "sum", {revision: 100})
        return variant.key

    async def swap(self, old: int, new: int) -> None:
        """Deploy a revision and take the one before away."""
        await self.deploy(new)
        assert await self.plane.drain(self.variant(old).key)
        await self.plane.remove(self.variant(old).key)

    async def post(self, path: str = INFER, *row: float) -> httpx.Response:
        async with httpx.AsyncClient(timeout=20, verify=False) as client:  # noqa: S501 - no TLS
            url = f"http://127.0.0.1:{self.port}{path}"
            return await client.post(url, json=infer_body(*(row or (1, 2))))

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.max_send_message_length", -1)]
        )


def started_for(folder: Path, *words: str) -> list[psutil.Process]:
    """Find what runs for a folder, with such words in its command.

    Other tests' servers start and end processes whenever they like.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if any(str(folder) in part for part in command) and {*words} <= {*command}:
                found.append(process)
    return found


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    port = free_port()
    async with DataPlane(tmp_path / "data-plane") as plane:
        await plane.open_environment(ENVIRONMENT, port=port)
        yield Yard(plane, tmp_path, port)
    assert not started_for(tmp_path)


async def test_swaps_under_load_fail_no_request(yard: Yard) -> None:
    await yard.deploy(1)
    clients: list[Client] = [http_kept, http_kept, http_new, grpc_kept, grpc_new, grpc_new]
    async with traffic(yard.port, clients) as answers:
        await until(lambda: answers["http 1"] > 30 and answers["grpc 1"] > 30)
        for old in (1, 2):
            await yard.swap(old, old + 1)
            new = str(old + 1)
            await until(lambda new=new: min(answers[f"http {new}"], answers[f"grpc {new}"]) > 30)  # type: ignore[misc]  # a default binds the loop's value
    failed = {what: count for what, count in answers.items() if what.startswith("failed")}
    print(f"{sum(answers.values())} requests: {dict(answers)}")
    assert failed == {}
    assert yard.plane.ready() == {VariantKey(ENVIRONMENT, "sum", 3): Condition(100, 1, 0)}


async def test_a_request_in_hand_is_answered_before_the_old_version_goes(yard: Yard) -> None:
    await yard.deploy(1)
    await yard.plane.ensure(yard.variant(2))
    slow = asyncio.create_task(yard.post(INFER, 1500, 0))
    old = yard.variant(1).key
    await until(lambda: "takes its time" in yard.plane.tail(old, 5))
    await yard.deploy(2)
    assert not await yard.plane.drain(old, within=0.2)
    assert await yard.plane.drain(old)
    await yard.plane.remove(old)
    assert (await slow).json()["model_version"] == "1"


async def test_weights_share_the_requests(yard: Yard) -> None:
    await yard.plane.ensure(yard.variant(1))
    await yard.plane.ensure(yard.variant(2))
    assert (await yard.post()).status_code == 404  # ready, but nobody said it may answer
    await yard.plane.set_weights(ENVIRONMENT, "sum", {1: 50, 2: 50})
    versions = {(await yard.post()).json()["model_version"] for _ in range(40)}
    assert versions == {"1", "2"}
    with pytest.raises(KeyError):
        await yard.plane.set_weights(ENVIRONMENT, "sum", {3: 100})


async def test_failures_are_counted_over_either_protocol(yard: Yard) -> None:
    key = await yard.deploy(1)
    assert (await yard.post(INFER, -1, 0)).status_code == 500
    async with yard.channel() as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        for more in ((), (("modelyard-model", "sum"),)):  # named by the message alone, too
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await stub.ModelInfer(grpc_request(-1, 0), metadata=more)  # type: ignore[misc]  # aio
            assert failed.value.code() is grpc.StatusCode.INTERNAL
    async with asyncio.timeout(10):
        while (await yard.plane.traffic())[key].error_count != 3:  # noqa: ASYNC110 - in Envoy
            await asyncio.sleep(0.05)
    assert (await yard.plane.traffic())[key].request_count == 3


async def test_callers_of_a_model_that_is_wanted_are_told_to_wait(yard: Yard) -> None:
    await yard.plane.open_environment(ENVIRONMENT, port=yard.port, model="sum")
    assert (await yard.post()).status_code == 503
    key = await yard.deploy(1)
    await yard.plane.remove(key, keep_model=True)
    assert (await yard.post()).status_code == 503
    await yard.plane.remove(key)
    assert (await yard.post()).status_code == 404


async def test_a_version_that_never_gets_ready_gets_no_request(yard: Yard) -> None:
    await yard.deploy(1)
    with pytest.raises(ModelServerError) as caught:
        await yard.plane.ensure(yard.variant(2, entry="NeverLoads"))
    assert caught.value.reason is FailureReason.CRASHED
    assert (await yard.post()).json()["model_version"] == "1"


async def test_a_model_server_that_dies_is_told_and_can_be_started_again(yard: Yard) -> None:
    key = await yard.deploy(1)
    await yard.post(INFER, -2, 0)
    failure = await asyncio.wait_for(yard.plane.next_failure(), 10)
    assert (failure.key, failure.error.reason) == (key, FailureReason.CRASHED)
    assert "exit code 3" in failure.error.message
    assert yard.plane.ready() == {}
    assert (await yard.post()).status_code == 503
    await yard.deploy(1)
    assert (await yard.post()).status_code == 200


async def test_envoy_is_started_again_with_the_same_configuration(yard: Yard) -> None:
    await yard.deploy(1)
    before = yard.plane.envoy.pid
    os.kill(before, signal.SIGKILL)
    await until(lambda: yard.plane.envoy.pid != before)
    assert (await yard.post()).status_code == 200
    await yard.swap(1, 2)
    assert (await yard.post()).json()["model_version"] == "2"


async def test_what_is_not_served(yard: Yard) -> None:
    await yard.deploy(1)
    for path in ("/v2/models/nope/infer", "/v2/models/sum2/infer", "/", "/v2/models/su%2Fm"):
        answer = await yard.post(path)
        assert answer.status_code in (400, 404), path
        assert answer.json()["error"], path
    async with yard.channel() as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        unknown = [grpc_request(1, model=name) for name in ("nope", "", "a\nb: c", "x" * 100)]
        for request in unknown:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request)  # type: ignore[misc]  # aio
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        gzip, large = grpc.Compression.Gzip, grpc_request(*[1] * 1000)  # a small one is sent plain
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(large, compression=gzip)  # type: ignore[misc]  # aio
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        named = (("modelyard-model", "sum"),)
        answer = await stub.ModelInfer(large, compression=gzip, metadata=named)  # type: ignore[misc]  # aio
        assert answer.model_version == "1"


async def test_large_requests(yard: Yard) -> None:
    await yard.deploy(1)
    request = pb.ModelInferRequest(model_name="sum")
    request.inputs.add(name="x", datatype="FP64", shape=[4, 1_000_000])
    request.raw_input_contents.append(bytes(32_000_000))
    async with yard.channel() as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        answer = await stub.ModelInfer(request)  # type: ignore[misc]  # aio
        assert list(answer.outputs[0].shape) == [4]
        request.raw_input_contents[0] = bytes(70_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request)  # type: ignore[misc]  # aio
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    row = b"[" + b"1," * 4_000_000 + b"1]"
    head = b'{"inputs":[{"name":"x","datatype":"FP64","shape":[1,4000001],"data":'
    async with httpx.AsyncClient(timeout=60) as client:
        url = f"http://127.0.0.1:{yard.port}{INFER}"
        answer = await client.post(url, content=head + row + b"}]}")
    assert answer.json()["outputs"][0]["data"] == [4_000_011.0]


async def test_a_taken_port_is_refused_and_the_rest_goes_on(yard: Yard) -> None:
    await yard.deploy(1)
    other = "projects/default/environments/staging"
    with pytest.raises(ConfigRejectedError, match="duplicate address"):
        await yard.plane.open_environment(other, port=yard.port)
    assert (await yard.post()).status_code == 200
    second = free_port()
    await yard.plane.open_environment(other, port=second)
    await yard.plane.close_environment(ENVIRONMENT)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{second}/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"error": "no model is live"})


async def test_the_stock_client(yard: Yard) -> None:
    await yard.deploy(1)
    process = await asyncio.create_subprocess_exec(
        *("uv", "run", "--no-project", "--quiet", "--with", "tritonclient[http,grpc]==2.73.0"),
        *("python", str(STOCK_CLIENT), f"127.0.0.1:{yard.port}", "sum"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    expected = {"health": [True, True], "ready": True, "version": "1", "total": [13.0, 17.0]}
    assert json.loads(output) == {"http": expected, "grpc": expected}


async def test_a_message_that_arrives_slowly_goes_to_the_new_version(yard: Yard) -> None:
    """A gRPC request may begin before a swap and be routed after it, when the old is gone."""
    await yard.deploy(1)
    message = grpc_request(1, 2).SerializeToString()
    rest = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield struct.pack(">BI", 0, len(message))
        await rest.wait()
        yield message

    url = f"http://127.0.0.1:{yard.port}/inference.GRPCInferenceService/ModelInfer"
    headers = {"content-type": "application/grpc", "te": "trailers"}
    async with httpx.AsyncClient(timeout=20, verify=False) as client:  # noqa: S501 - no TLS
        sending = asyncio.create_task(client.post(url, content=slowly(), headers=headers))
        active = f"http.{stat_name(ENVIRONMENT)}.downstream_rq_active"
        admin = EnvoyAdmin(yard.folder / "data-plane" / "envoy" / "admin.sock")
        async with asyncio.timeout(10):
            while (await admin.numbers(active))[active] == 0:  # noqa: ASYNC110 - in Envoy
                await asyncio.sleep(0.01)
        await yard.swap(1, 2)
        rest.set()
        answer = await sending
    assert pb.ModelInferResponse.FromString(answer.content[5:]).model_version == "2"
