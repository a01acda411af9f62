"""PostgreSQL killed, its connections cut, read-only, stopped for long, under clients at work."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from services.suite.check_state import check_state, in_settings
from tests.e2e.production import ProductionSuite
from tests.e2e.suite import until
from tests.faults.followers import Followers
from tests.faults.kill_yards import SETTINGS
from tests.faults.work import Work
from tests.servers import postgres
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import ValkeyServer

KILLS = int(os.environ.get("MODELYARD_POSTGRES_KILLS", "20"))
CUTS = 10 * KILLS
AT_ONCE = 5
WRITES = 5
SECONDS = 3.0 * KILLS
"""How long it is stopped."""
REFUSALS = 10
"""So many calls are refused before it takes writes again."""
BACK_SECONDS = 60.0
"""After so long work goes on, also on a machine with much else to do; the bar is 3 seconds."""
CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"}
CUT = """
    SELECT count(pg_terminate_backend(pid)) FROM (
        SELECT pid FROM pg_stat_activity WHERE datname LIKE 'test_%' ORDER BY random() LIMIT {}
    ) AS chosen
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of our own that keeps what it acknowledged when it is killed."""
    settings = {**postgres.SETTINGS, "synchronous_commit": "on"}
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-postgres-") as folder,
        postgres.running(Path(folder), settings=settings) as server,
    ):
        yield server


@pytest.fixture
def suite(
    tmp_path: Path, server: PostgresServer, s3_server: S3Server, valkey: ValkeyServer
) -> Iterator[ProductionSuite]:
    suite = ProductionSuite(tmp_path, server, s3_server.fresh_bucket(), valkey.url)
    suite.environment |= SETTINGS
    suite.start()
    yield suite
    suite.stop()


def test_whatever_is_done_to_postgresql_nothing_is_lost_or_done_twice(
    suite: ProductionSuite, server: PostgresServer, tmp_path: Path
) -> None:
    with suite.client() as client, suite.client("quiet") as quiet:
        work = Work(client, tmp_path)
        followers = Followers(client, quiet, work.orderer.ordered)
        work.start()
        for name, harm in {
            f"{KILLS} kills": lambda: [kill(server, work) for _ in range(KILLS)],
            f"{CUTS} connections cut": lambda: cut(server, work),
            "read-only": lambda: refuse_writes(server, work),
            f"{SECONDS:.0f} s stopped": lambda: stop(server, work),
        }.items():
            print(told(name, harm, work), flush=True)
            assert work.problems() == []
            followers.hear()
        work.settle()
        print(f"{followers}; {work}")
        assert work.problems() == []
        assert work.broken_promises() == []
        assert set(work.codes()) <= CODES
        followers.check()
    assert suite.gone() == []
    assert suite.errors() == []
    assert list(check_state(in_settings(suite.environment))) == []


def told(name: str, harm: Callable[[], list[float]], work: Work) -> str:
    """Do harm; say after how long work went on each time, and how calls ended meanwhile."""
    work.goes_on()
    before = work.codes()
    back = sorted(harm())
    assert back[-1] < BACK_SECONDS
    return (
        f"{name}: work went on after {back[len(back) // 2]:.1f} s, {back[-1]:.1f} s at the latest; "
        f"calls that ended otherwise: {dict(work.codes() - before)}"
    )


def kill(server: PostgresServer, work: Work) -> float:
    """Kill all its processes; return how long after its return work went on."""
    work_some(work)
    server.stop()
    server.start()
    return seconds_until_work(work)


def cut(server: PostgresServer, work: Work) -> list[float]:
    """End connections of the services, some at a time; return after how long work went on."""
    seconds, count = [], 0
    while count < CUTS:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            row = connection.execute(CUT.format(AT_ONCE).encode()).fetchone()
        assert row is not None
        count += int(row[0])
        seconds.append(seconds_until_work(work))
        work_some(work)
    return seconds


def work_some(work: Work) -> None:
    """Let some work be done, and what is to come hit whatever is under way at a random moment."""
    for _ in range(WRITES):
        work.goes_on()
    time.sleep(random.uniform(0.02, 0.5))  # noqa: S311 - when, is for chance to say


def refuse_writes(server: PostgresServer, work: Work) -> list[float]:
    """Have it take no writes, as a standby or one whose disk fills up; reads go on."""
    before = work.codes().total()
    with read_only(server):
        until(
            lambda: work.codes().total() >= before + REFUSALS or work.problems(),
            what="writes to be refused",
        )
    return [seconds_until_work(work)]


@contextmanager
def read_only(server: PostgresServer) -> Iterator[None]:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        try:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


def stop(server: PostgresServer, work: Work) -> list[float]:
    """Have it answer nothing for a while; return how long after that work went on."""
    server.pause()
    try:
        time.sleep(SECONDS)
    finally:
        server.resume()
    return [seconds_until_work(work)]


def seconds_until_work(work: Work) -> float:
    """Return after how long a write is acknowledged."""
    began = time.monotonic()
    work.goes_on()
    return time.monotonic() - began
