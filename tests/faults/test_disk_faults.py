"""A disk that is full, and one that fails: no write is acknowledged, reads go on.

strace makes the system calls of the running services fail, and lets them be again.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelyard import Client
from modelyard.errors import ModelyardError

from tests.e2e.suite import EmbeddedSuite, until
from tests.faults.installation import Installation, OnDisk
from tests.faults.process import Process

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Installation, Process, Client]]:
    """Running services in which something is kept."""
    with OnDisk(tmp_path).fresh(tmp_path / "faulty") as it, it.services() as process:
        assert it.comes_up(process), it.log()
        with it.client(timeout=20) as client:
            client.versions.create("kept", artifact=_push(client, tmp_path / "kept"))
            yield it, process, client
        process.kill()
        assert it.check() == []


@contextmanager
def failing(pid: int, calls: str, error: str) -> Iterator[None]:
    """Have system calls of a process fail meanwhile."""
    command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null"]
    inject = ["-e", f"trace={calls}", "-e", "signal=none", "-e", f"inject={calls}:error={error}"]
    with subprocess.Popen([*command, *inject], stderr=subprocess.DEVNULL) as strace:
        until(lambda: _is_traced(pid), what="strace to be attached")
        yield
        strace.terminate()


def _is_traced(pid: int) -> bool:
    """Say whether every thread of a process is traced."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in task.read_text() for task in tasks)


def _push(client: Client, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(os.urandom(10_000))
    return client.artifacts.push(folder).name


def _refusals(client: Client, folder: Path) -> list[str]:
    """Write what must not be acknowledged; return what was answered."""
    reasons = []
    for number in range(3):
        with pytest.raises(ModelyardError) as refused:
            client.models.create(f"lost-{number}")
        reasons.append(refused.value.reason)
    return reasons


def _reads(client: Client, folder: Path) -> None:
    (version,) = client.versions.list("kept")
    client.artifacts.pull(version.artifact, folder)


def _health(it: Installation) -> int:
    with grpc.insecure_channel(it.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status)


@pytest.mark.slow
def test_a_full_disk(running: tuple[Installation, Process, Client], tmp_path: Path) -> None:
    it, process, client = running
    with failing(process.pid, "pwrite64", "ENOSPC"):
        assert set(_refusals(client, tmp_path)) == {"LIMIT_EXCEEDED"}
        _reads(client, tmp_path / "read")
        assert _health(it) == SERVING
    back = time.monotonic()
    until(lambda: client.models.create(f"after-{time.monotonic_ns()}"), what="a write")
    assert time.monotonic() - back < 5
    _push(client, tmp_path / "again")
    assert [m.name for m in client.models.list() if "lost" in m.name] == []


@pytest.mark.slow
def test_a_disk_that_does_not_flush(
    running: tuple[Installation, Process, Client], tmp_path: Path
) -> None:
    it, process, client = running
    with failing(process.pid, "fsync,fdatasync", "EIO"):
        assert set(_refusals(client, tmp_path)) == {"SERVICE_UNAVAILABLE"}
        _reads(client, tmp_path / "read")
        until(lambda: _health(it) == NOT_SERVING, seconds=10, what="health to say so")
    assert [m.name for m in client.models.list() if "lost" in m.name] == []


def _creates(client: Client) -> bool:
    try:
        return bool(client.models.create(f"again-{time.monotonic_ns()}"))
    except ModelyardError:
        return False


@pytest.mark.slow
def test_the_embedded_suite_restarts_what_does_not_serve(tmp_path: Path) -> None:
    suite = EmbeddedSuite(tmp_path / "suite")
    suite.start()
    try:
        first = suite.services().pid
        with suite.client() as client:
            client.models.create("kept")
            with failing(first, "fsync,fdatasync", "EIO"):
                # The process whose disk fails takes no write ever again: another one does.
                until(lambda: _creates(client), seconds=90, what="a write")
            assert suite.services().pid != first
            assert "kept" in [m.name.rpartition("/")[2] for m in client.models.list()]
    finally:
        suite.stop()
    log = (suite.layout.logs / "supervisor.log").read_text()
    assert log.count("does not serve any more") == 1
