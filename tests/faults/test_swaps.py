"""Swaps, canaries and shadows under constant load: no request fails but a failing canary's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from modelyard import Analysis, Client
from modelyard.deployer.v1 import deployment_pb2

from tests.e2e.agent.conftest import Site
from tests.e2e.suite import predict, until
from tests.faults.predictions import BODY, KINDS, predictions
from tests.faults.site import (
    ENVIRONMENT,
    FAILED,
    PATIENCE,
    address_of,
    roll_out,
    running_site,
    versions,
)

READY_SECONDS = 20
CANARY = 20
ANALYSIS = Analysis(min_requests=25, max_error_rate=0.05, max_p95=0.4)
FEWEST = 20
"""Answers that each kind of caller gets of each version; with fewer a swap proves nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    settings = {"MODELYARD_AGENT_READY_SECONDS": str(READY_SECONDS)}
    with running_site(tmp_path_factory.mktemp("swaps"), **settings) as site:
        yield site


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with site.client() as client:
        yield client


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("swaps", [10, 100])
def test_swaps_fail_no_request(site: Site, client: Client, tmp_path: Path, swaps: int) -> None:
    model = f"swap-{swaps}"
    both = versions(site, tmp_path, model, {}, {})
    roll_out(client, model, both[0])
    with predictions(address_of(site), model) as seen:
        for turn in range(1, swaps + 1):
            new = turn % 2
            before = seen.of(str(new + 1))
            roll_out(client, model, both[new])
            until(
                lambda new=new, before=before: all(  # type: ignore[misc]
                    count >= before[kind] + FEWEST for kind, count in seen.of(str(new + 1)).items()
                ),
                what="answers of the new version to every kind of caller",
            )
    print(f"{swaps} swaps, {seen.total} requests, failed: {seen.failures}")
    assert seen.failures == []
    by_kind = {kind: sum(c for (k, _), c in seen.answers.items() if k == kind) for kind in KINDS}
    assert min(by_kind.values()) >= FEWEST * swaps, f"too few to say anything: {by_kind}"


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "never ready": ({"stalls": True}, "NEVER_READY", f"not ready after {READY_SECONDS} s"),
    "crashes on load": ({"dies": True}, "CRASHED", "exit code 7"),
    "answers 500": ({"fails": True}, "ANALYSIS_FAILED", "error rate 100.00%, limit 5.00%"),
    "gets slow": ({"seconds": 0.5, "slow_after": 10}, "ANALYSIS_FAILED", "p95 latency"),
}


@pytest.mark.slow
def test_bad_versions_are_given_up_and_harm_nobody_else(
    site: Site, client: Client, tmp_path: Path
) -> None:
    good, *bad = versions(site, tmp_path, "bad", {}, *(given for given, _, _ in BAD.values()))
    roll_out(client, "bad", good)
    with predictions(address_of(site), "bad", each=2) as seen:
        for version, (what, (_, reason, text)) in zip(bad, BAD.items(), strict=True):
            failed_before, before, began = len(seen.failures), seen.total, time.monotonic()
            how = {"canary": [CANARY], "analysis": ANALYSIS}
            ended = roll_out(client, "bad", version, state=FAILED, **how)
            took = time.monotonic() - began
            until(lambda: len(_get(client, "bad").variants) == 1, what="it to be gone")
            failed, asked = len(seen.failures) - failed_before, seen.total - before
            print(f"{what}: given up after {took:.1f} s, {failed} of {asked} requests failed")
            assert ended.failure.reason == reason
            assert text in ended.failure.message
            assert ended.live_revision == 1
            if what == "answers 500":
                assert 0 < failed <= asked * (CANARY + 5) / 100
            else:
                assert failed == 0, seen.failures[-failed:]
    own = ("500: ", "INTERNAL: the model failed to predict")
    assert all(any(text in failure for text in own) for _, failure in seen.failures)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_split_is_what_was_said(site: Site, client: Client, tmp_path: Path) -> None:
    both = versions(site, tmp_path, "split", {}, {})
    roll_out(client, "split", both[0])
    client.deployments.deploy(both[1], environment=ENVIRONMENT, canary=[CANARY], manual=True)
    until(lambda: _get(client, "split").rollout.HasField("step_start_time"), what="the split")
    with predictions(address_of(site), "split", each=4) as seen:
        until(lambda: seen.total >= 5_000, seconds=4 * PATIENCE, what="5,000 calls")
    counted = seen.versions()
    share = 100 * counted["2"] / counted.total()
    print(f"{counted.total()} calls, {share:.1f} % to the canary of {CANARY} %")
    assert seen.failures == []
    assert abs(share - CANARY) <= 3
    client.deployments.abort("split", environment=ENVIRONMENT)
    until(lambda: len(_get(client, "split").variants) == 1, what="the canary to be gone")


@pytest.mark.slow
def test_a_shadow_gets_every_request_and_never_answers(
    site: Site, client: Client, tmp_path: Path
) -> None:
    both = versions(site, tmp_path, "shadow", {}, {})
    roll_out(client, "shadow", both[0])
    client.deployments.shadow(both[1], environment=ENVIRONMENT)
    ready = deployment_pb2.VARIANT_STATE_READY
    until(
        lambda: [v.state for v in _get(client, "shadow").variants] == [ready] * 2,
        seconds=PATIENCE,
        what="the shadow to be ready",
    )
    asked = 0
    while not _counts(client, "shadow")[1]:  # until the first copy is seen, one at a time
        predict(address_of(site), "shadow", BODY)
        asked += 1
        until(lambda asked=asked: _counts(client, "shadow")[0] == asked, what="the count of it")  # type: ignore[misc]
    missed = asked - _counts(client, "shadow")[1]
    with predictions(address_of(site), "shadow") as seen:
        until(lambda: seen.total >= 1_000, seconds=2 * PATIENCE, what="1,000 calls")
    assert seen.failures == []
    assert set(seen.versions()) == {"1"}
    total = asked + seen.total
    until(lambda: _counts(client, "shadow") == [total, total - missed], what="a copy of each")
    print(f"{seen.total} calls, a copy of each, all answered by the live version")


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
def test_a_rollback_takes_little_time(
    site: Site, client: Client, tmp_path: Path, warm: bool
) -> None:
    model = f"back-{'warm' if warm else 'cold'}"
    both = versions(site, tmp_path, model, {}, {})
    roll_out(client, model, both[0])
    began = time.monotonic()
    roll_out(client, model, both[1], keep_warm=warm)
    start = time.monotonic() - began
    with predictions(address_of(site), model) as seen:
        until(lambda: seen.versions()["2"] >= FEWEST, what="answers of the new version")
        began = time.monotonic()
        client.deployments.rollback(model, environment=ENVIRONMENT)
        while not seen.versions()["1"]:
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.002)
        took = time.monotonic() - began
        client.deployments.wait(model, environment=ENVIRONMENT, timeout=PATIENCE)
    print(f"{model}: {took:.2f} s to the first answer; a deploy took {start:.2f} s")
    assert seen.failures == []
    assert took < (5 if warm else start + 10)  # bounds for a busy machine; the bars are measured


def _get(client: Client, model: str) -> deployment_pb2.Deployment:
    return client.deployments.get(model, environment=ENVIRONMENT)


def _counts(client: Client, model: str) -> list[int]:
    """Return how many requests each variant answered, the live one first."""
    variants = sorted(_get(client, model).variants, key=lambda variant: variant.revision)
    return [variant.traffic.request_count for variant in variants]
