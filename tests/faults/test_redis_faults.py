"""Redis gone, stopped, emptied and full, under clients at work: it costs delay, nothing else.

Each service has two replicas, so who follows one is mostly told of what was done at the other.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.suite.check_state import check_state, in_settings
from tests.e2e.suite import until
from tests.faults.followers import Followers
from tests.faults.kill_yards import SETTINGS
from tests.faults.replicated import ReplicatedSuite
from tests.faults.work import Work
from tests.servers import valkey
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import ValkeyServer

SECONDS = float(os.environ.get("MODELYARD_REDIS_GONE_SECONDS", "60"))
CATCH_UP_SECONDS = 30.0
"""So long on a machine with much else to do; the bar on one without is 10 seconds."""
GROWTH_BYTES = 64 * 1024 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


@pytest.fixture
def redis() -> Iterator[ValkeyServer]:
    """A server of our own, that keeps nothing when it ends."""
    with valkey.running() as server:
        yield server


@pytest.fixture
def suite(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server, redis: ValkeyServer
) -> Iterator[ReplicatedSuite]:
    suite = ReplicatedSuite(tmp_path, postgres_server, s3_server.fresh_bucket(), redis.url)
    suite.environment |= SETTINGS
    suite.start()
    yield suite
    suite.stop()


@dataclass(frozen=True)
class Fault:
    """What is done to Redis."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object]
    meanwhile: Callable[[], object] = lambda: None


def faults(redis: ValkeyServer) -> list[Fault]:
    return [
        Fault("killed", redis.stop, redis.start),
        Fault("stopped", redis.pause, redis.resume),
        Fault("emptied over and over", redis.flush, redis.flush, redis.flush),
        Fault("full", lambda: redis.limit("1"), lambda: redis.limit("0")),
    ]


def test_without_redis_nothing_is_lost_and_no_call_fails(
    suite: ReplicatedSuite, redis: ValkeyServer, tmp_path: Path
) -> None:
    with suite.client() as client, suite.client("quiet") as quiet:
        work = Work(client, tmp_path)
        followers = Followers(client, quiet, work.orderer.ordered)
        work.start()
        until(lambda: len(work.orderer.ordered) > 1, seconds=120, what="a first build to end")
        for fault in faults(redis):
            before = suite.memory()
            seen = endure(fault, work, followers)
            growth = max(now - before[name] for name, now in suite.memory().items())
            print(f"{seen}; no service grew by more than {growth >> 20} MiB", flush=True)
            assert work.problems() == []
            assert growth < GROWTH_BYTES
        work.settle()
        print(f"{followers}; {work}")
        assert work.problems() == []
        assert work.broken_promises() == []
        assert work.codes() == Counter()
        followers.check()
    assert suite.gone() == []
    assert suite.errors() == []
    assert list(check_state(in_settings(suite.environment))) == []


def endure(fault: Fault, work: Work, followers: Followers) -> str:
    """Work and follow through a fault; say what was seen."""
    before, read = work.acknowledged, len(followers.reader.seen)
    fault.begin()
    over = time.monotonic() + SECONDS
    while time.monotonic() < over:
        work.goes_on()
        fault.meanwhile()
    during, ended = work.acknowledged - before, len(followers.reader.seen) - read
    heard = followers.hear()
    fault.end()
    late = followers.hear()
    assert during > 0
    assert late < CATCH_UP_SECONDS
    return (
        f"{fault.name} for {SECONDS:.0f} s: {during} writes acknowledged meanwhile and {ended} "
        f"builds ended, changes heard of after {heard:.1f} s, and {late:.1f} s when it was over"
    )
