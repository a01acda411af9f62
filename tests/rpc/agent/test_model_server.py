"""A real model server as a process: its protocol over HTTP and gRPC, its refusals, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

from services.deployer.agent.model_server import (
    FailureReason,
    ModelServerError,
    ModelServerProcess,
    ModelServerSpec,
)
from tests.rpc.agent.bundles import infer_body, make_bundle, spec, until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ModelServerProcess]:
    bundle = make_bundle(tmp_path / "bundle", bias=10)
    started = await ModelServerProcess.start(spec(bundle), folder=tmp_path / "server")
    try:
        await started.wait_ready(20)
        yield started
    finally:
        await started.stop(1)


@pytest.fixture
async def http(server: ModelServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://127.0.0.1:{server.ports.http}"
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:
        yield client


@pytest.fixture
async def stub(server: ModelServerProcess) -> AsyncIterator[pb_grpc.GRPCInferenceServiceAsyncStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.grpc}") as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)  # type: ignore[misc]  # one stub for both


def grpc_request(*row: float, model: str = "sum") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id="q")
    tensor = request.inputs.add(name="x", datatype="FP64", shape=[1, len(row)])
    tensor.contents.fp64_contents.extend(row)
    return request


async def test_http(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/sum/infer", json=infer_body(1, 2, 3))
    assert answer.status_code == 200
    assert answer.headers["modelyard-version"] == "3"
    assert answer.json() == {
        "model_name": "sum",
        "model_version": "3",
        "outputs": [{"name": "total", "datatype": "FP64", "shape": [1], "data": [16.0]}],
    }
    described = (await http.get("/v2/models/sum/versions/3")).json()
    assert described["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]
    assert described["outputs"] == [{"name": "total", "datatype": "FP64", "shape": [-1]}]
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/sum/ready"):
        assert (await http.get(path)).status_code == 200


async def test_http_refusals(http: httpx.AsyncClient) -> None:
    infer = "/v2/models/sum/infer"
    post = http.post
    bad_tensor = infer_body(1) | {"outputs": [{"name": "nope"}]}
    cases = {
        "unknown model": (await post("/v2/models/nope/infer", json=infer_body(1)), 404),
        "unknown version": (await http.get("/v2/models/sum/versions/9"), 404),
        "unknown path": (await http.get("/v1/x"), 404),
        "wrong method": (await http.get(infer), 405),
        "no JSON": (await post(infer, content=b"{"), 400),
        "missing input": (await post(infer, content=b'{"inputs":[]}'), 400),
        "unknown output": (await post(infer, json=bad_tensor), 400),
        "compressed": (
            await post(infer, content=b"x", headers={"content-encoding": "gzip"}),
            400,
        ),
        "too large": (await post(infer, content=bytes(65 * 1024 * 1024)), 413),
        "model fails": (await post(infer, json=infer_body(-1)), 500),
    }
    for name, (answer, status) in cases.items():
        assert answer.status_code == status, name
        assert answer.json()["error"], name
        assert "42" not in answer.text
        assert "Traceback" not in answer.text
    assert (await post(infer, json=infer_body(1))).status_code == 200


async def test_grpc(stub: pb_grpc.GRPCInferenceServiceAsyncStub) -> None:
    call = stub.ModelInfer(grpc_request(1, 2, 3))
    answer = await call
    assert dict(await call.trailing_metadata())["modelyard-version"] == "3"
    assert (answer.model_version, answer.id) == ("3", "q")
    assert list(answer.outputs[0].contents.fp64_contents) == [16.0]
    raw = pb.ModelInferRequest(model_name="sum")
    raw.inputs.add(name="x", datatype="FP64", shape=[1, 2])
    raw.raw_input_contents.append(np.array([1.0, 2.0]).tobytes())
    answer = await stub.ModelInfer(raw)
    assert np.frombuffer(answer.raw_output_contents[0], dtype=np.float64).tolist() == [13.0]
    assert (await stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
    assert (await stub.ModelReady(pb.ModelReadyRequest(name="sum"))).ready
    described = await stub.ModelMetadata(pb.ModelMetadataRequest(name="sum"))
    assert (list(described.versions), list(described.inputs[0].shape)) == (["3"], [-1, 2])


async def test_grpc_refusals(stub: pb_grpc.GRPCInferenceServiceAsyncStub) -> None:
    cases = [
        (grpc_request(1, model="nope"), grpc.StatusCode.NOT_FOUND),
        (pb.ModelInferRequest(model_name="sum"), grpc.StatusCode.INVALID_ARGUMENT),
        (grpc_request(-1), grpc.StatusCode.INTERNAL),
    ]
    for request, code in cases:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request)
        assert caught.value.code() is code
        assert "42" not in (caught.value.details() or "")


async def test_overload_is_refused_at_once(tmp_path: Path) -> None:
    ports_file = tmp_path / "ports.json"
    arguments = ["-m", "modelyard.serving", "--bundle", str(make_bundle(tmp_path / "bundle"))]
    arguments += ["--name", "sum", "--version", "1", "--ports-file", str(ports_file)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, "--concurrency", "1", "--queue", "1"
    )
    try:
        await until(ports_file.exists)
        base = f"http://127.0.0.1:{json.loads(ports_file.read_text())['http_port']}"
        async with httpx.AsyncClient(base_url=base, timeout=20) as client:
            body = infer_body(700)
            posts = [client.post("/v2/models/sum/infer", json=body) for _ in range(6)]
            statuses = sorted(answer.status_code for answer in await asyncio.gather(*posts))
        assert statuses == [200, 200, 503, 503, 503, 503]
    finally:
        process.terminate()
        await process.wait()


async def test_sigterm_finishes_what_is_in_flight(
    server: ModelServerProcess, http: httpx.AsyncClient
) -> None:
    slow = asyncio.create_task(http.post("/v2/models/sum/infer", json=infer_body(1000)))
    await until(lambda: "takes its time" in server.tail(5))
    stopping = asyncio.create_task(server.stop(10))
    assert (await slow).json()["outputs"][0]["data"] == [1010.0]
    await stopping
    assert any('"stopped"' in line for line in server.tail(5))


@pytest.mark.parametrize(
    ("entry", "example", "reason", "words"),
    [
        ("NeverLoads", (1, 2), FailureReason.CRASHED, "no weights"),
        ("LoadsForever", (1, 2), FailureReason.NEVER_READY, "loading the weights"),
        ("Sum", (-1, 2), FailureReason.SMOKE_FAILED, "the secret is 42"),
    ],
)
async def test_failures_are_told_with_the_last_lines(
    tmp_path: Path, entry: str, example: tuple[float, ...], reason: FailureReason, words: str
) -> None:
    bundle = make_bundle(tmp_path / "bundle", entry=entry, example=example)
    server = await ModelServerProcess.start(spec(bundle), folder=tmp_path / "server")
    try:
        with pytest.raises(ModelServerError) as caught:
            await server.wait_ready(8 if reason is FailureReason.NEVER_READY else 60)
        assert caught.value.reason is reason
        assert words in caught.value.message
    finally:
        await server.stop(0)


async def test_another_environment_lock_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "environment" / "requirements.lock").write_text("numpy==1.0\n")
    server = await ModelServerProcess.start(spec(bundle), folder=tmp_path / "server")
    with pytest.raises(ModelServerError, match="not the one this bundle was built with"):
        await server.wait_ready(20)


def test_the_model_server_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from services.deployer.agent.model_server import ModelServerProcess, ModelServerSpec
async def main():
    spec = ModelServerSpec(Path(sys.executable), Path(sys.argv[1]), "sum", "1")
    server = await ModelServerProcess.start(spec, folder=Path(sys.argv[2]))
    await server.wait_ready(20)
    print(server.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    arguments = [str(make_bundle(tmp_path / "bundle")), str(tmp_path / "server")]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    assert psutil.wait_procs([child], timeout=5)[1] == []


async def test_the_server_needs_no_settings_of_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_TOKEN", "secret")
    bundle = make_bundle(tmp_path / "bundle")
    given = ModelServerSpec(Path(sys.executable), bundle, "sum", "1")
    server = await ModelServerProcess.start(given, folder=tmp_path / "server")
    await server.wait_ready(20)
    assert "MODELYARD_TOKEN" not in psutil.Process(server.pid).environ()
    await server.stop()
