"""A process that was told to stop ends in time, though what it depends on hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
import pytest
from modelyard.errors import ModelyardError

from services.common.processes.leaving import LEAVE_SECONDS
from services.common.rpc.server import ServerSettings
from services.suite.migrate import migrate_all
from services.suite.start import free_port
from tests.e2e.suite import TINY, EmbeddedSuite, build, until
from tests.faults.installation import DATABASES, Installation
from tests.faults.site import running_site, versions
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import ValkeyServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GRACE = 2.0
"""Seconds that calls which hang are given."""
MOST = ServerSettings().lame_duck_seconds + GRACE + LEAVE_SECONDS + 10
"""How long a stop may take; the last of it for a busy machine."""
FOREVER = 120


@contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Stop processes, so that they take what they are sent and never answer."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def servers(program: str) -> list[psutil.Process]:
    """Find the processes of a server that the tests started."""
    return [p for p in psutil.Process().children(recursive=True) if p.name() == program]


@contextmanager
def silent_port() -> Iterator[int]:
    """Listen where nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def settings(
    postgres_server: PostgresServer, s3_server: S3Server, valkey: ValkeyServer
) -> Iterator[dict[str, str]]:
    bucket = s3_server.fresh_bucket()
    with ExitStack() as stack:
        urls = {
            f"MODELYARD_{name.upper()}_DATABASE_URL": stack.enter_context(
                postgres_server.database()
            )
            for name in DATABASES
        }
        list(migrate_all(urls))
        yield urls | {
            "MODELYARD_REDIS_URL": valkey.url,
            "MODELYARD_ARTIFACT_S3_ENDPOINT": f"http://{bucket.endpoint}",
            "MODELYARD_ARTIFACT_S3_BUCKET": bucket.bucket,
            "MODELYARD_ARTIFACT_S3_ACCESS_KEY": bucket.access_key,
            "MODELYARD_ARTIFACT_S3_SECRET_KEY": bucket.secret_key,
            "MODELYARD_GRACE_SECONDS": str(GRACE),
            "MODELYARD_LOG_LEVEL": "INFO",
        }


def write(it: Installation, _tree: Path) -> None:
    """Make calls that each service has to write for, and that nobody waits for in the end."""
    with it.client(timeout=2) as client, suppress(ModelyardError):
        client.models.create(f"model-{os.urandom(4).hex()}")


def push(it: Installation, tree: Path) -> None:
    """Begin a push."""
    (tree / "more.bin").write_bytes(os.urandom(4_000_000))
    with it.client() as client, suppress(ModelyardError):
        client.artifacts.push(tree)


def asks(pid: int, settings: dict[str, str]) -> bool:
    """Say whether a process waits for S3."""
    port = int(settings["MODELYARD_ARTIFACT_S3_ENDPOINT"].rpartition(":")[2])
    return any(c.raddr and c.raddr.port == port for c in psutil.Process(pid).net_connections())


HANGS: dict[str, Callable[[Installation, Path], None]] = {
    "nothing": write,
    "postgres": write,
    "valkey-server": write,
    "weed": push,
    "collector-away": write,
    "collector-silent": write,
}


@pytest.mark.parametrize("hangs", HANGS)
def test_the_services_stop_though_something_hangs(
    settings: dict[str, str],
    tmp_path: Path,
    tree: Path,
    hangs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELYARD_DIRECT", "off")
    with ExitStack() as stack:
        if hangs.startswith("collector"):
            silent = stack.enter_context(silent_port())
            port = silent if hangs == "collector-silent" else free_port()
            settings["MODELYARD_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        it = Installation(tmp_path / "data", settings)
        with it.services() as process:
            assert it.comes_up(process), it.log()
            HANGS["nothing"](it, tree)
            if found := servers(hangs):
                stack.enter_context(frozen(found))
            works = [Thread(target=HANGS[hangs], args=(it, tree), daemon=True) for _ in range(4)]
            for work in works:
                work.start()
            if hangs == "weed":
                until(lambda: asks(process.pid, settings), what="S3 to be asked")
            else:
                for work in works:
                    work.join()
            took = stopped(process.pid, process.poll)
            print(f"{hangs}: {took:.2f} s, {it.log()[-300:]}")
            assert process.poll() == 0, it.log()
            assert took < MOST


def stopped(pid: int, poll: Callable[[], object]) -> float:
    """Tell a process to stop; return how many seconds it took."""
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: poll() is not None, seconds=FOREVER, what="it to stop")
    return time.monotonic() - began


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSuite]:
    suite = EmbeddedSuite(tmp_path_factory.mktemp("suite"))
    suite.start()
    yield suite
    suite.stop()


@pytest.mark.parametrize("hang", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_a_worker_stops(suite: EmbeddedSuite, tmp_path: Path, *, busy: bool, hang: bool) -> None:
    pool = f"pool-{busy}-{hang}".lower()
    worker = suite.start_worker(tmp_path, MODELYARD_WORKER_POOL=pool)
    with suite.client() as client:
        order = client.builds.create(
            TINY, model="slow", params={"steps": 10_000 if busy else 1, "pause": 0.05}, pool=pool
        )
        if busy:
            follow = client.builds.follow(order.name)
            assert next(event for event in follow if event.HasField("metric"))
        else:
            client.builds.wait(order.name, timeout=120)
        with frozen([suite.services()] if hang else []):
            took = stopped(worker.pid, worker.poll)
        print(f"worker, busy: {busy}, services hang: {hang}: {took:.2f} s")
        assert worker.poll() == 0
        assert took < 2 * MOST  # its builds have a grace
        if busy:
            client.builds.cancel(order.name)


@pytest.mark.parametrize("hang", [False, True])
def test_an_agent_stops(tmp_path: Path, *, hang: bool) -> None:
    with running_site(tmp_path / "site") as site, site.client() as client:
        (version,) = versions(site, tmp_path, "churn", {})
        client.deployments.deploy(version, environment="production")
        client.deployments.wait("churn", environment="production", timeout=90)
        agent = site.running.pop("agent")
        services = psutil.Process(site.running["services"].pid)
        with frozen([services] if hang else []):
            took = stopped(agent.pid, agent.poll)
        print(f"agent, services hang: {hang}: {took:.2f} s")
        assert agent.poll() == 0
        assert took < MOST


@pytest.mark.parametrize("hang", [False, True])
def test_a_suite_stops(tmp_path: Path, *, hang: bool) -> None:
    suite = EmbeddedSuite(tmp_path)
    suite.start()
    with suite.client() as client:
        build(client, "calm")
    assert suite.keeper is not None
    with frozen(suite.find("valkey-server") if hang else []):
        took = stopped(suite.keeper.pid, suite.keeper.poll)
    print(f"suite, Redis hangs: {hang}: {took:.2f} s")
    assert suite.keeper.poll() == 0
    assert took < MOST
