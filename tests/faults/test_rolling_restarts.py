"""Every service restarted replica by replica under load: callers notice nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelyard import Client

from tests.e2e.production import SERVICES
from tests.e2e.suite import TINY, build, until
from tests.faults.callers import Callers
from tests.faults.replicated import ReplicatedSuite, replicated
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
STEPS = 100_000
FEWEST_CALLS = 500
GRACE = 60
"""Seconds that nothing which follows may hold a stop up for."""


@pytest.fixture
def suite(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server
) -> Iterator[ReplicatedSuite]:
    """Two replicas of every service."""
    graces = {f"MODELYARD_{service.upper()}_GRACE_SECONDS": str(GRACE) for service in SERVICES}
    with replicated(tmp_path, postgres_server, s3_server, **graces) as suite:
        yield suite


class Follower(threading.Thread):
    """Follows the metrics of a build by the stock client, and keeps their steps."""

    def __init__(self, client: Client, build: str) -> None:
        super().__init__(daemon=True)
        self.steps: list[int] = []
        self.failure = ""
        self._client, self._build = client, build

    def run(self) -> None:
        try:
            for event in self._client.builds.follow(self._build):
                if event.HasField("metric"):
                    self.steps.append(event.metric.step)
        except Exception as error:  # told by the test
            self.failure = repr(error)


class Watcher(threading.Thread):
    """Watches the runs of a model by the stock client, and keeps the names of new ones."""

    def __init__(self, client: Client, model: str) -> None:
        super().__init__(daemon=True)
        self.created: list[str] = []
        self.failure = ""
        self._cursor = client.changes.cursor(runs=True)
        self._client, self._model = client, model

    def run(self) -> None:
        try:
            for change in self._client.changes.runs(self._model, cursor=self._cursor):
                self.created.append(change.run.name)
        except Exception as error:  # told by the test
            self.failure = repr(error)


@pytest.fixture
def followed(suite: ReplicatedSuite) -> Iterator[tuple[Client, Follower, Watcher]]:
    """A build that trains and is followed, and a model whose runs are watched."""
    with suite.client() as client:
        build(client, "calm")
        order = client.builds.create(TINY, model="slow", params={"steps": STEPS, "pause": 0.05})
        follower, watcher = Follower(client, order.name), Watcher(client, "calm")
        follower.start()
        watcher.start()
        until(lambda: follower.steps, seconds=120, what="the build to train")
        yield client, follower, watcher
        client.builds.cancel(order.name)
        client.builds.wait(order.name, timeout=60)


@pytest.mark.parametrize("rounds", [1, 5])
def test_a_rolling_restart_fails_no_call(
    suite: ReplicatedSuite,
    followed: tuple[Client, Follower, Watcher],
    tmp_path: Path,
    rounds: int,
) -> None:
    client, follower, watcher = followed
    with Callers(client, "calm", tmp_path) as callers:
        stops = [(service, suite.roll(service)) for _ in range(rounds) for service in SERVICES]
    print(f"{dict(callers.calls)} calls, {len(callers.failures)} failed, seconds to stop {stops}")
    assert callers.failures == []
    assert max(took for _, both in stops for took in both) < GRACE / 2
    assert sum(callers.calls.values()) >= FEWEST_CALLS
    until(lambda: len(watcher.created) >= len(callers.created), what="the watcher to catch up")
    seen = len(follower.steps)
    until(lambda: len(follower.steps) > seen, what="the follower to go on")
    assert follower.failure == watcher.failure == ""
    assert follower.steps == list(range(len(follower.steps)))
    assert sorted(watcher.created) == sorted(callers.created)
