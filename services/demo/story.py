"""The demo's story: train, compare, gate, deploy, predict, swap under load, roll back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uv
from modelyard import Client
from modelyard.builder.v1 import build_pb2
from modelyard.cli.compare import show_comparison
from modelyard.cli.gates import parse_gate
from modelyard.cli.live import show_events
from modelyard.cli.render import leaf, short_version, show_table, state
from modelyard.deployer.v1 import deployment_pb2
from modelyard.errors import GateRefusedError, ModelyardError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from services.demo.load import Load, Tally
from services.suite.children import Layout
from services.suite.start import StartError, free_port, start_suite

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "examples" / "breast-cancer"
STOCK_CLIENT = Path(__file__).with_name("stock_client.py")
TRITON = "tritonclient[http,grpc]==2.73.0"
MODEL = "breast-cancer"
ENVIRONMENT = "production"
GATES = ("accuracy>=0.93", "better:accuracy", "tests")
BUILD_SECONDS = 600.0
STEADY_SECONDS = 2.0

out = Console(highlight=False)


class DemoError(Exception):
    """The demo saw something that must not happen."""


def run(*, keep: bool) -> int:
    """Tell the story; return the exit status. Nothing is left behind unless asked for."""
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    data = Path(tempfile.mkdtemp(prefix="modelyard-demo-"))
    suite: subprocess.Popen[bytes] | None = None
    try:
        layout = Layout(data, free_port(), free_port())
        _chapter("Starting the suite: four services, a worker, an agent, Envoy, Valkey")
        suite = start_suite(layout, environment={})
        _say(f"services on {layout.address}, everything it keeps in {data}")
        with Client(layout.address, token=layout.admin_token.read_text().strip()) as client:
            _tell(client)
        _say(f"\nDone in {time.monotonic() - started:.0f} s.")
        _next_steps(layout, keep=keep)
        if keep:
            suite.wait()
        return 0
    except KeyboardInterrupt:
        _say("\nInterrupted; cleaning up.")
        return 130
    except (DemoError, StartError, ModelyardError) as error:
        _say(f"\nThe demo failed: {error}")
        _show_logs(data)
        return 1
    finally:
        # A second Ctrl-C must not leave anything behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _stop(suite)
        shutil.rmtree(data, ignore_errors=True)


def _tell(client: Client) -> None:
    client.models.create(
        MODEL,
        description="Breast tumours, benign or malignant",
        metric_goals={"accuracy": "maximize", "f1": "maximize", "log_loss": "minimize"},
    )
    gates = [parse_gate(text, project=client.project) for text in GATES]
    client.environments.create(ENVIRONMENT, gates=gates)
    forest = _build(client, algorithm="forest", n_estimators=100)
    stump = _build(client, algorithm="stump")
    logistic = _build(client, algorithm="logistic", C=1.0)

    _chapter("Comparing the three versions, side by side")
    show_comparison(client.versions.compare([forest, stump, logistic]))

    _chapter(f"Deploying {short_version(forest)} to {ENVIRONMENT}")
    _deploy(client, forest, reason="the first one")
    address = client.environments.get(ENVIRONMENT).address
    example = client.artifacts.read(forest, "example.json").decode()
    _predict(address, example)

    _chapter(f"Deploying {short_version(stump)}: its metric is worse, so the gates refuse it")
    _refused(client, stump)

    _chapter(f"Swapping to {short_version(logistic)} under constant load, then rolling back")
    with _watched_load(address, example) as tally:
        time.sleep(STEADY_SECONDS)
        _deploy(client, logistic, reason="beats the forest")
        time.sleep(STEADY_SECONDS)
    _judge(tally, expected={leaf(forest), leaf(logistic)})

    client.deployments.rollback(MODEL, environment=ENVIRONMENT, reason="to show that it works")
    _await_live(client)
    _predict(address, example, must_be=leaf(forest))

    _chapter("The history of the deployment")
    _history(client)


def _build(client: Client, **params: object) -> str:
    """Build the example with parameters, watched live; return its version."""
    _chapter(f"Building from source: {', '.join(f'{k}={v}' for k, v in params.items())}")
    build = client.builds.create(SOURCE, model=MODEL, params=params)
    show_events(client.builds.follow(build.name, timeout=BUILD_SECONDS))
    ended = client.builds.get(build.name)
    if ended.state != build_pb2.BUILD_STATE_SUCCEEDED:
        raise DemoError(f"{ended.name} {ended.failure.reason}: {ended.failure.message}")
    version = client.versions.get(ended.version)
    accuracy = version.metrics["accuracy"]
    _say(f"registered {short_version(version.name)}: accuracy {accuracy:.4f}, tests passed")
    return version.name


def _deploy(client: Client, version: str, *, reason: str) -> None:
    client.deployments.deploy(version, environment=ENVIRONMENT, reason=reason)
    _await_live(client)


def _await_live(client: Client) -> None:
    for event in client.deployments.follow(MODEL, environment=ENVIRONMENT, timeout=BUILD_SECONDS):
        _say(f"  {event.type.lower().replace('_', ' ')}  {event.message}")
    deployment = client.deployments.get(MODEL, environment=ENVIRONMENT)
    if deployment.state != deployment_pb2.DEPLOYMENT_STATE_LIVE:
        raise DemoError(f"not live: {deployment.failure.reason} {deployment.failure.message}")


def _refused(client: Client, version: str) -> None:
    try:
        client.deployments.deploy(version, environment=ENVIRONMENT, reason="hope")
    except GateRefusedError as error:
        _say(f"refused: {error.message}")
        return
    raise DemoError(f"the gates let {version} pass")


def _predict(address: str, example: str, *, must_be: str = "") -> None:
    """Ask with a stock client, over HTTP and gRPC."""
    answer = subprocess.run(
        [
            *(uv.find_uv_bin(), "run", "--quiet", "--no-project", "--with", TRITON),
            *("python", str(STOCK_CLIENT), address, MODEL, example),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise DemoError(f"the stock client failed: {answer.stderr[-1000:]}")
    for line in answer.stdout.splitlines():
        _say(f"  tritonclient over {line}")
        if must_be and f"version {must_be} " not in line:
            raise DemoError(f"version {must_be} should have answered")


class _watched_load(ExitStack):  # noqa: N801 - used like a function
    """Load a model and show how it goes, line by line, until left."""

    def __init__(self, address: str, example: str) -> None:
        super().__init__()
        request = json.loads(example)
        rows = request["inputs"][0]["shape"][0]
        self._load = Load(address, MODEL, _varied(request), rows)

    def __enter__(self) -> Tally:  # type: ignore[override]  # the tally is what is wanted
        self.enter_context(self._load)
        live = self.enter_context(Live(console=out, refresh_per_second=4, transient=True))
        ended = threading.Event()
        thread = threading.Thread(target=self._show, args=(live, ended), daemon=True)
        thread.start()
        self.callback(thread.join)
        self.callback(ended.set)
        return self._load.tally

    def _show(self, live: Live, ended: threading.Event) -> None:
        while not ended.wait(0.25):
            live.update(Text(_summary(self._load.tally), "cyan"))


def _varied(request: dict[str, Any]) -> list[str]:
    """Make requests that differ, so that no cache could answer them."""
    bodies = []
    for number in range(50):
        tensors = [
            {**tensor, "data": _scaled(tensor["data"], 1 + number / 1_000)}
            for tensor in request["inputs"]
        ]
        bodies.append(json.dumps({"inputs": tensors}))
    return bodies


def _scaled(data: Any, factor: float) -> Any:
    return [_scaled(item, factor) for item in data] if isinstance(data, list) else data * factor


def _summary(tally: Tally) -> str:
    versions = ", ".join(f"version {v}: {n}" for v, n in sorted(tally.answered.items()))
    return f"  {tally.rate:.0f} requests/s · {versions} · failed: {len(tally.failures)}"


def _judge(tally: Tally, *, expected: set[str]) -> None:
    _say(_summary(tally))
    _say(f"{len(tally.failures)} failed of the {tally.total} requests sent during the swap")
    if tally.failures:
        raise DemoError(f"a request failed: {tally.failures[0]}")
    if set(tally.answered) != expected:
        raise DemoError(f"versions {sorted(tally.answered)} answered, not {sorted(expected)}")


def _history(client: Client) -> None:
    revisions = client.deployments.history(MODEL, environment=ENVIRONMENT)
    show_table(
        ["REVISION", "VERSION", "CAUSE", "OUTCOME", "BY", "REASON"],
        (
            [
                r.number,
                short_version(r.version),
                state(deployment_pb2.RevisionCause, r.cause).lower(),
                state(deployment_pb2.RevisionOutcome, r.outcome).lower(),
                r.actor,
                r.reason,
            ]
            for r in revisions
        ),
    )


def _next_steps(layout: Layout, *, keep: bool) -> None:
    if keep:
        _say("It keeps running until Ctrl-C. In another terminal:")
        _say(
            f"  export MODELYARD_SERVER={layout.address} MODELYARD_TOKEN_FILE={layout.admin_token}"
        )
    else:
        _say("Try next: `uv run modelyard up` keeps a suite running; in another terminal")
    here = (f"compare {MODEL}/1 {MODEL}/3", f"deploy {MODEL} --env {ENVIRONMENT} --check")
    anew = (
        f"environments create {ENVIRONMENT} --gate 'accuracy>=0.93' --gate tests",
        f"deploy {MODEL} --env {ENVIRONMENT}",
    )
    for line in (
        f"build {SOURCE.relative_to(ROOT)} --param n_estimators=300",
        *(here if keep else anew),
        "init my-model && uv run modelyard build my-model",
    ):
        _say(f"  uv run modelyard {line}")


def _stop(suite: subprocess.Popen[bytes] | None) -> None:
    if suite is None:
        return
    suite.terminate()
    suite.wait()


def _show_logs(data: Path) -> None:
    for path in sorted((data / "logs").glob("*.log")):
        tail = path.read_text(errors="replace").splitlines()[-5:]
        print(f"--- {path.name}", *tail, sep="\n", file=sys.stderr)


def _chapter(title: str) -> None:
    out.print(Text(f"\n{title}", "bold"))


def _say(line: str) -> None:
    out.print(Text(line), soft_wrap=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
