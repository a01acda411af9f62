"""A model server with worker processes: they share the work, die alone and are counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.common.processes.limits import MIB
from services.deployer.agent.model_server import (
    FailureReason,
    ModelServerError,
    ModelServerProcess,
)
from services.deployer.rollouts.plans import ServingSpec
from tests.rpc.agent.bundles import infer_body, make_bundle, spec, until

INFER = "/v2/models/sum/infer"


async def start(folder: Path, serving: ServingSpec, entry: str) -> ModelServerProcess:
    given = replace(spec(make_bundle(folder / "bundle", entry=entry)), serving=serving)
    return await ModelServerProcess.start(given, folder=folder / "server")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ModelServerProcess]:
    serving = ServingSpec(worker_count=2, concurrency=1, queue_size=1)
    started = await start(tmp_path, serving, "Mirror")
    try:
        await started.wait_ready(60)
        yield started
    finally:
        await started.stop(1)


@pytest.fixture
async def http(server: ModelServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    base = f"http://127.0.0.1:{server.ports.http}"
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:
        yield client


def flags(*names: str) -> dict[str, object]:
    flag = {"datatype": "BOOL", "shape": [1], "data": [True]}
    return {"inputs": [{"name": name, **flag} for name in names]}


async def samples(http: httpx.AsyncClient) -> dict[str, float]:
    text = (await http.get("/metrics")).text
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


async def test_workers(server: ModelServerProcess, http: httpx.AsyncClient) -> None:
    workers = psutil.Process(server.pid).children()
    assert len(workers) == 2
    answers = [await http.post(INFER, json=infer_body(1, 2)) for _ in range(20)]
    pids = Counter(answer.json()["outputs"][1]["data"][0] for answer in answers)
    assert set(pids) <= {worker.pid for worker in workers}
    # One of them dies: its request fails, the other answers, a new one comes.
    died = await http.post(INFER, json=flags("x", "die"))
    assert (died.status_code, died.json()) == (500, {"error": "the model failed to predict"})
    assert (await http.post(INFER, json=infer_body(1, 2))).status_code == 200
    await until(lambda: any("worker replaced" in line for line in server.tail(50)))
    assert len(psutil.Process(server.pid).children()) == 2
    assert (await http.post("/v2/models/other/infer", json=infer_body(1))).status_code == 404
    assert (await http.post(INFER, json={"inputs": []})).status_code == 400
    found = await samples(http)
    prefix = "modelyard_serving_"
    assert found[f"{prefix}info['3', 'sum']"] == 1
    # 20, one after the death, and the example that the agent asked for.
    assert found[f"{prefix}requests_total['http', 'ok']"] == 22
    assert found[f"{prefix}request_seconds_count['http']"] == 22
    assert found[f"{prefix}requests_total['failed', 'http']"] == 1
    assert found[f"{prefix}requests_total['http', 'invalid']"] == 1
    assert found[f"{prefix}worker_restarts_total[]"] == 1
    assert found[f"{prefix}in_flight[]"] == found[f"{prefix}queued[]"] == 0


async def test_workers_share_the_limit_and_finish_what_is_in_hand(tmp_path: Path) -> None:
    server = await start(tmp_path, ServingSpec(worker_count=2, concurrency=1, queue_size=1), "Sum")
    try:
        await server.wait_ready(60)
        base = f"http://127.0.0.1:{server.ports.http}"
        async with httpx.AsyncClient(base_url=base, timeout=20) as http:
            posts = [http.post(INFER, json=infer_body(800, 0)) for _ in range(6)]
            answers = await asyncio.gather(*posts)
            refused = [answer for answer in answers if answer.status_code == 503]
            assert [answer.headers["retry-after"] for answer in refused] == ["1", "1"]
            found = await samples(http)
            assert found["modelyard_serving_requests_total['http', 'overloaded']"] == 2
            slow = asyncio.create_task(http.post(INFER, json=infer_body(1000, 0)))
            await until(lambda: sum("takes its time" in line for line in server.tail(50)) == 5)
            family = psutil.Process(server.pid).children()
            stopping = asyncio.create_task(server.stop(10))
            assert (await slow).json()["outputs"][0]["data"] == [1000.0]
            await stopping
        assert psutil.wait_procs(family, timeout=5)[1] == []
    finally:
        await server.stop(0)


async def test_a_server_ends_with_its_last_worker(
    server: ModelServerProcess,
) -> None:
    for worker in psutil.Process(server.pid).children():
        worker.kill()
    error = await asyncio.wait_for(server.crash(), 20)
    assert error.reason is FailureReason.CRASHED
    assert "exit code 1" in error.message


async def test_workers_that_cannot_load(tmp_path: Path) -> None:
    server = await start(tmp_path, ServingSpec(worker_count=2), "NeverLoads")
    try:
        with pytest.raises(ModelServerError, match="no weights") as caught:
            await server.wait_ready(60)
        assert caught.value.reason is FailureReason.CRASHED
    finally:
        await server.stop(0)


async def test_a_server_that_uses_too_much_memory_is_ended(tmp_path: Path) -> None:
    serving = ServingSpec(cpu_cores=1, memory_bytes=400 * MIB)
    server = await start(tmp_path, serving, "Mirror")
    try:
        await server.wait_ready(60)
        process = psutil.Process(server.pid)
        assert len(process.cpu_affinity() or ()) == 1
        assert process.environ()["OMP_NUM_THREADS"] == "1"
        base = f"http://127.0.0.1:{server.ports.http}"
        async with httpx.AsyncClient(base_url=base, timeout=20) as http:
            with pytest.raises(httpx.TransportError):
                await http.post(INFER, json=flags("x", "hold"))
        error = await asyncio.wait_for(server.crash(), 20)
        assert "of memory, more than its limit of 400.0 MiB" in error.message
    finally:
        await server.stop(0)
