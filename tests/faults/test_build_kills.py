"""kill -9 of workers, services and Redis, at random, during short builds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from modelyard.builder.v1 import build_pb2

from tests.e2e.suite import TERMINAL, EmbeddedSuite, until
from tests.faults.build_storm import check_log, patient, storm

pytestmark = pytest.mark.slow
SETTINGS = {
    "MODELYARD_BUILDER_LEASE_SECONDS": "3",
    "MODELYARD_BUILDER_TICK_SECONDS": "0.3",
    "MODELYARD_BUILDER_RETRY_SECONDS": "0.2",
    "MODELYARD_WORKER_CONCURRENCY": "0",
}


@pytest.mark.parametrize(
    ("builds", "kills"),
    [
        pytest.param(6, {"worker": 10, "services": 3, "valkey": 1}, id="short"),
        pytest.param(
            *(60, {"worker": 100, "services": 20, "valkey": 10}),
            id="long",
            marks=pytest.mark.timeout(5_400),
        ),
    ],
)
def test_whatever_is_killed_each_build_ends_once_and_no_line_is_lost(
    tmp_path: Path, builds: int, kills: dict[str, int]
) -> None:
    suite = EmbeddedSuite(tmp_path / "suite", SETTINGS)
    suite.start()
    try:
        with storm(suite, tmp_path) as it:
            victims = [victim for victim, count in kills.items() for _ in range(count)]
            random.shuffle(victims)
            for victim in victims:
                it.strike(victim)
            while len(it.builds) < builds:
                it.order()
            until(lambda: not it.unended(), seconds=180, what="every build to end")
            for follower in it.followers:
                follower.join(60)
            ended = it.states()
            assert {build.state for build in ended} <= set(TERMINAL)
            succeeded = [b for b in ended if b.state == build_pb2.BUILD_STATE_SUCCEEDED]
            assert succeeded, "nothing got through"
            for build in ended:
                assert build.version or build.failure.reason, build
                stored = patient(lambda build=build: list(it.client.builds.logs(build.name)))  # type: ignore[misc]
                check_log(it.seen[build.name], stored, build)
            versions = patient(lambda: list(it.client.versions.list("storm")))
            assert sorted(v.name for v in versions) == sorted(b.version for b in succeeded)
            assert sorted(v.build for v in versions) == sorted(b.name for b in succeeded)
            until(lambda: not suite.find("modelyard.building"), seconds=5, what="no orphans")
            outcomes = Counter(build.failure.reason or "registered" for build in ended)
            attempts, lines = sum(build.attempt for build in ended), it.lines()
            print(f"{it.hits} of {it.kills} kills hit a build; {attempts} attempts, {lines} lines")
            print(f"{len(ended)} builds: {dict(outcomes)}")
            assert it.hits >= 0.2 * it.kills, f"{it.hits} of {it.kills} kills hit a build"
    finally:
        suite.stop()
