"""kill -9 of deployer, agent, Envoy and model servers, at random, during rollouts."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.e2e.agent.conftest import Site
from tests.faults.predictions import predictions
from tests.faults.rollout_storm import VICTIMS, Storm
from tests.faults.site import address_of, roll_out, running_site, versions

SETTINGS = {"MODELYARD_DEPLOYER_TICK_SECONDS": "0.3"}
KILLS = int(os.environ.get("MODELYARD_ROLLOUT_KILLS", "10"))
WRONG = ("answered", "500", "NOT_FOUND", "INVALID")
"""Failures that no kill excuses: a wrong value, a model not ready, a route to nowhere."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("kills"), **SETTINGS) as site:
        yield site


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_whatever_is_killed_one_whole_version_answers(site: Site, tmp_path: Path) -> None:
    model = "storm"
    first, second = versions(site, tmp_path, model, {}, {})
    with site.client() as client:
        for version in (second, first):
            began = time.monotonic()
            roll_out(client, model, version)
            length = time.monotonic() - began
        with predictions(address_of(site), model) as seen:
            storm = Storm(site, client, model, (first, second), seen, length)
            victims = list(islice(cycle(VICTIMS), KILLS))
            random.shuffle(victims)
            for victim in victims:
                storm.strike(victim)
        print(
            f"{KILLS} kills {dict(storm.kills)}, {storm.within} within a rollout; ends "
            f"{dict(storm.ends)}, the slowest after {storm.slowest:.1f} s; {seen.total} requests, "
            f"{len(seen.failures)} failed while what they needed was dead"
        )
        wrong = [text for _, text in seen.failures if any(word in text for word in WRONG)]
        assert wrong == []
        assert storm.within >= 0.2 * KILLS, "too few kills came within a rollout"
        client.deployments.stop(model, environment="production")
        client.deployments.wait(model, environment="production", timeout=60)
