"""The whole path of a deployment: agent, Envoy, model servers in environments of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from modelyard import Analysis, Autoscaling, Sampling, Serving
from modelyard.deployer.v1 import deployment_pb2
from modelyard.errors import FailedPreconditionError

from services.deployer.agent.profiling import profile
from tests.e2e.agent.conftest import Site, run_on

LIVE = deployment_pb2.DEPLOYMENT_STATE_LIVE
FAILED = deployment_pb2.DEPLOYMENT_STATE_FAILED
ENVIRONMENT = "production"
PATIENCE = 90.0


def predict(site: Site, model: str, *, x: float = 1.0, **headers: str) -> float:
    """Ask for x times the factor, over a connection of its own, without a second try."""
    body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [x]}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{site.layout.inference_port}/v2/models/{model}/infer",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return float(json.load(answer)["outputs"][0]["data"][0])


def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as the administrator."""
    settings = {
        "MODELYARD_SERVER": site.layout.address,
        "MODELYARD_TOKEN": site.layout.admin_token.read_text().strip(),
    }
    line = [str(Path(sys.executable).with_name("modelyard")), *arguments]
    environment = {**os.environ, **settings}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@dataclass
class Load:
    """What constant requests got."""

    answers: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def constant_load(site: Site, model: str, clients: int = 4) -> Iterator[Load]:
    load, stop = Load(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                load.answers.append(predict(site, model))
            except (OSError, ValueError) as error:
                load.failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(site: Site, model: str, wanted: float) -> bool:
    try:
        return predict(site, model) == wanted
    except OSError:
        return False


def deploy(site: Site, model: str, version: str, *, state: int = LIVE) -> deployment_pb2.Deployment:
    with site.client() as client:
        client.deployments.deploy(version, environment=ENVIRONMENT)
        found = client.deployments.wait(model, environment=ENVIRONMENT, timeout=PATIENCE)
        assert found.state == state, found
        return found


def test_a_bundle_with_another_lock_never_serves(site: Site, tmp_path: Path) -> None:
    exchanged = site.register(tmp_path, "exchanged", 1, other_lock=b"numpy==1.0\n")
    failed = deploy(site, "exchanged", exchanged.name, state=FAILED)
    assert failed.failure.reason == "ENVIRONMENT_FAILED"
    assert "is not the one the version names" in failed.failure.message


def test_swap_under_load_and_back(site: Site, tmp_path: Path) -> None:
    first = site.register(tmp_path, "swap", 1)
    second = site.register(tmp_path, "swap", 2)
    broken = site.register(tmp_path, "swap", 3, broken=True)
    live = deploy(site, "swap", first.name)
    assert predict(site, "swap") == 1
    with site.client() as client:
        address = client.environments.get(ENVIRONMENT).address
    assert address == f"127.0.0.1:{site.layout.inference_port}"
    with constant_load(site, "swap") as load:
        live = deploy(site, "swap", second.name)
        assert live.live_revision == 2
        failed = deploy(site, "swap", broken.name, state=FAILED)
        assert failed.live_revision == 2
        assert failed.failure.reason == "SMOKE_FAILED"
        assert "could not convert string to float" in failed.failure.message
        with site.client() as client:
            client.deployments.rollback("swap", environment=ENVIRONMENT)
            back = client.deployments.wait("swap", environment=ENVIRONMENT, timeout=PATIENCE)
        assert back.state == LIVE
    assert load.failures == []
    assert set(load.answers) == {1.0, 2.0}
    assert len(load.answers) > 50
    assert predict(site, "swap") == 1
    with site.client() as client:
        header = ("variant", "new")
        client.deployments.preview(second.name, environment=ENVIRONMENT, header=header)
        until(lambda: predict(site, "swap", variant="new") == 2)
        assert predict(site, "swap") == predict(site, "swap", variant="old") == 1
        client.deployments.stop_preview("swap", environment=ENVIRONMENT)
        until(lambda: predict(site, "swap", variant="new") == 1)


@pytest.mark.slow
def test_the_command_line_deploys_shows_and_takes_back(site: Site, tmp_path: Path) -> None:
    for factor in (1, 2):
        site.register(tmp_path, "lined", factor)

    def run(*arguments: str, code: int = 0) -> str:
        done = command(site, *arguments)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    place = ("--env", ENVIRONMENT)
    assert "VERDICT" in run("deploy", "lined/1", *place, "--check")
    deployed = run("deploy", "lined/1", *place, "--reason", "first of all", "--replicas", "2")
    assert "LIVE" in deployed
    assert "lined/1 100 % ready, 2/2 ready" in " ".join(deployed.split())
    assert predict(site, "lined") == 1
    assert "lined/2" in run("deploy", "lined/2", *place, "--reason", "better", "--keep-warm")
    assert predict(site, "lined") == 2
    carries_what_is_live(site, run)
    watched = run("deployments", "watch", "lined", *place, "--once")
    assert watched.splitlines()[0].startswith("lined  LIVE")
    assert "lined/2  100 %  ready  1/1" in watched
    explained = run("explain", "lined", *place)
    assert "lined/2 took over from lined/1" in explained
    assert "better" in explained
    run("deployments", "preview", "lined/1", *place, "--header", "Variant=old")
    until(lambda: predict(site, "lined", variant="old") == 1)
    assert "variant=old" in run("deployments", "show", "lined", *place)
    run("deployments", "unpreview", "lined", *place)
    assert "lined/1" in run("rollback", "lined", *place, "--reason", "worse")
    assert predict(site, "lined") == 1
    assert "lined/1" in run("deployments", "list", *place)
    story = run("deployments", "history", "lined", *place).splitlines()
    causes = [line.split()[2] for line in story[1:]]
    assert causes == ["rollback", "preview", "deploy", "deploy"], story
    assert "worse" in story[1]
    assert "stop it?" in run("undeploy", "lined", *place, code=1)
    assert "STOPPED" in run("undeploy", "lined", *place, "--yes")
    assert run("rollback", "lined", *place, "--revision", "99", code=1)


def carries_what_is_live(site: Site, run: Callable[..., str]) -> None:
    """Take what is live to another environment: the very same bytes."""
    with site.client() as client:
        client.environments.create("next")
    assert "live        lined/2" in run("deploy", "lined", "--from", ENVIRONMENT, "--env", "next")
    both = [
        json.loads(run("deployments", "show", "lined", "--env", name, "-o", "json"))
        for name in (ENVIRONMENT, "next")
    ]
    pinned = {
        revision["artifact"]
        for deployment in both
        for revision in deployment["revisions"]
        if revision["number"] == deployment["live_revision"]
    }
    assert len(pinned) == 1
    assert "STOPPED" in run("undeploy", "lined", "--env", "next", "--yes")


@pytest.mark.slow
def test_a_canary_is_judged_by_what_the_proxy_counts(site: Site, tmp_path: Path) -> None:
    deploy(site, "canary", site.register(tmp_path, "canary", 1).name)
    analysis = Analysis(min_requests=25, max_error_rate=0.02, max_p95=0.4)
    with constant_load(site, "canary") as load, site.client() as client:

        def roll_out(version: str) -> deployment_pb2.Deployment:
            client.deployments.deploy(
                version, environment=ENVIRONMENT, canary=[20], analysis=analysis
            )
            return client.deployments.wait("canary", environment=ENVIRONMENT, timeout=PATIENCE)

        live = roll_out(site.register(tmp_path, "canary", 2).name)
        assert (live.state, live.live_revision) == (LIVE, 2)
        assert load.failures == []
        failing = roll_out(site.register(tmp_path, "canary", 3, fails=True).name)
        assert (failing.state, failing.live_revision) == (FAILED, 2)
        assert failing.failure.reason == "ANALYSIS_FAILED"
        assert failing.failure.message.startswith("error rate 100.00%, limit 2.00%")
        until(lambda: len(client.deployments.get(failing.name).variants) == 1)
        failed = len(load.failures)
        slow = roll_out(site.register(tmp_path, "canary", 4, seconds=0.5).name)
        assert (slow.state, slow.live_revision) == (FAILED, 2)
        assert slow.failure.message.startswith("p95 latency")
        until(lambda: len(client.deployments.get(slow.name).variants) == 1)
        history = list(client.deployments.history("canary", environment=ENVIRONMENT))
    assert len(load.failures) == failed  # none but the failing canary's own
    assert all("500" in failure for failure in load.failures)
    print(f"{len(load.answers)} answers, {failed} failures of the failing canary")
    assert failed < len(load.answers) * 0.2
    assert [revision.number for revision in history] == [4, 3, 2, 1]
    assert predict(site, "canary") == 2


def test_sampled_requests_show_their_drift(site: Site, tmp_path: Path) -> None:
    with site.client() as client:
        numbers = [float(number % 20) for number in range(200)]
        columns = [profile("x", "float64", numbers, len(numbers))]
        trained_on = client.datasets.create_version(
            "sampled-train", "1" * 64, schema=columns, row_count=len(numbers)
        )
        run = run_on(site, "sampled", trained_on.name)
        version = site.register(tmp_path, "sampled", 3, run=run).name
        serving = Serving(sampling=Sampling(1.0, rows=100, max_rows_per_second=1_000))
        client.deployments.deploy(version, environment=ENVIRONMENT, serving=serving)
        client.deployments.wait("sampled", environment=ENVIRONMENT, timeout=PATIENCE)
        with pytest.raises(FailedPreconditionError, match="were sampled yet"):
            client.deployments.drift("sampled", environment=ENVIRONMENT)

        def drifted(xs: Iterable[float]) -> dict[str, bool]:
            """Ask so often that there is another sample, and say which columns drifted."""
            before = sample()
            for x in xs:
                assert predict(site, "sampled", x=x) == 3 * x
            until(lambda: sample() != before)
            found = client.deployments.drift("sampled", environment=ENVIRONMENT)
            assert (found.base, found.other) == (trained_on.name, sample())
            assert [change.column for change in found.schema_changes] == ["output.y"]
            return {column.column: column.drifted for column in found.columns}

        def sample() -> str:
            return client.deployments.get("sampled", environment=ENVIRONMENT).revisions[0].sample

        assert drifted(numbers[:100]) == {"x": False}
        assert drifted([number + 15 for number in numbers[:110]]) == {"x": True}
        sampled = client.datasets.get_version(sample())
    shown = command(site, "deployments", "drift", "sampled", "-e", ENVIRONMENT, "--fail-on-drift")
    assert shown.returncode == 1, shown.stderr
    assert "1 of 1 columns drifted" in shown.stdout
    assert sampled.name.split("/")[3] == "sampled-production-requests"
    assert sampled.row_count == 100
    assert version in sampled.source.query


def test_model_servers_come_and_go_with_the_load(site: Site, tmp_path: Path) -> None:
    version = site.register(tmp_path, "scaled", 4, seconds=0.1).name
    plan = Autoscaling(2, target=2, cooldown=1)
    with site.client() as client:
        serving = Serving(queue=64, autoscaling=plan)
        client.deployments.deploy(version, environment=ENVIRONMENT, serving=serving)
        client.deployments.wait("scaled", environment=ENVIRONMENT, timeout=PATIENCE)
        journal = client.deployments.updates("scaled", environment=ENVIRONMENT)
        cursor = next(iter(journal)).cursor

        def counts() -> tuple[int, int]:
            (variant,) = client.deployments.get("scaled", environment=ENVIRONMENT).variants
            return variant.ready_replica_count, variant.wanted_replica_count

        with constant_load(site, "scaled") as many:
            until(lambda: counts() == (2, 2))
        with constant_load(site, "scaled", clients=1) as one:
            until(lambda: counts() == (1, 1))
            before = len(one.answers)
            until(lambda: len(one.answers) > before + 5)
        assert many.failures + one.failures == []
        told: list[str] = []
        for news in client.deployments.updates("scaled", environment=ENVIRONMENT, cursor=cursor):
            told += [event.message for event in news.events if event.type == "SCALED"]
            if len(told) == 2:
                break
    assert told[0].startswith("from 1 to 2 model servers: ")
    assert told[1].startswith("from 2 to 1 model servers: at most ")


def test_live_traffic_outlives_the_services(site: Site, tmp_path: Path) -> None:
    deploy(site, "steady", site.register(tmp_path, "steady", 5).name)
    with constant_load(site, "steady") as load:
        site.kill("services")
        before = len(load.answers)
        until(lambda: len(load.answers) > before + 50)
        site.start("services")
        deploy(site, "steady", site.register(tmp_path, "steady", 6).name)
    assert load.failures == []
    assert predict(site, "steady") == 6


def test_a_killed_agent_brings_live_models_back_alone(site: Site, tmp_path: Path) -> None:
    deploy(site, "lasting", site.register(tmp_path, "lasting", 7).name)
    children = psutil.Process(site.running["agent"].pid).children(recursive=True)
    assert len(children) >= 2
    site.kill("services")
    site.kill("agent")
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    with pytest.raises(urllib.error.URLError):
        predict(site, "lasting")
    site.start("agent")
    until(lambda: answers(site, "lasting", 7))
    site.start("services")
    deploy(site, "lasting", site.register(tmp_path, "lasting", 8).name)
    assert predict(site, "lasting") == 8


def test_a_killed_model_server_comes_back(site: Site, tmp_path: Path) -> None:
    deploy(site, "mortal", site.register(tmp_path, "mortal", 9).name)
    agent = psutil.Process(site.running["agent"].pid)
    servers = [
        child
        for child in agent.children(recursive=True)
        if "modelyard.serving" in child.cmdline() and "mortal" in child.cmdline()
    ]
    assert servers
    for server in servers:
        server.kill()
    until(lambda: answers(site, "mortal", 9))
    with site.client() as client:
        until(
            lambda: (
                [
                    variant.state
                    for variant in client.deployments.get(
                        "mortal", environment=ENVIRONMENT
                    ).variants
                ]
                == [deployment_pb2.VARIANT_STATE_READY]
            )
        )
