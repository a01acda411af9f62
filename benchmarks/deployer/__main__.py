"""`python -m benchmarks.deployer [--quick]`: the bars of the deployer."""

from __future__ import annotations

import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.deployer import idle, rivals
from benchmarks.deployer.setting import (
    ENVIRONMENT,
    MODEL,
    Load,
    Setting,
    bentoml_body,
    grpc_body,
    load,
    mlflow_body,
    running,
    v2_body,
)
from benchmarks.runner import Measurement, Scale, main
from services.demo.load import Load as Steady

INFER = f"/v2/models/{MODEL}/infer"
SECONDS = 4.0
ROWS = (1, 100)


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group."""
    with running(scale) as setting:
        yield _overhead(setting)
        yield from _throughput(setting)
        yield from _swap(setting)
        yield _rollback(setting, "rollback, warm", keep_warm=True)
        yield _rollback(setting, "rollback, cold, above the model's start", keep_warm=False)
        yield idle.measure(setting)


def _overhead(setting: Setting) -> Measurement:
    """Ask through Envoy and straight, the median of one client who waits for each answer."""
    straight = _model_server(setting)
    body = v2_body(1)
    through, direct = [], []
    for _ in range(setting.scale.repetitions):
        through.append(load("HTTP", setting.address, INFER, body, seconds=2, clients=1).p50)
        direct.append(load("HTTP", straight, INFER, body, seconds=2, clients=1).p50)
    value = statistics.median(through) - statistics.median(direct)
    return Measurement("prediction through Envoy, p50", value, through, direct)


def _model_server(setting: Setting) -> str:
    """Find where the model server itself listens for HTTP."""
    for child in psutil.Process(setting.pid).children(recursive=True):
        command = child.cmdline()
        if "modelyard.serving" in command:
            ports = Path(command[command.index("--ports-file") + 1])
            return f"127.0.0.1:{json.loads(ports.read_text())['http_port']}"
    raise RuntimeError("no model server runs")


def _throughput(setting: Setting) -> Iterator[Measurement]:
    """Ask us and the rivals for the same predictions, in turns."""
    folder = setting.folder
    # MLServer as it is quickest: over HTTP with a worker, over gRPC without.
    with (
        rivals.mlserver(folder, workers=1) as (http, _),
        rivals.mlserver(folder, workers=0) as (_, grpc),
        rivals.mlflow(folder) as mlflow,
        rivals.bentoml(folder) as bentoml,
    ):
        for rows in ROWS:
            ours = _asking("HTTP", setting.address, INFER, v2_body(rows))
            others = [
                _asking("HTTP", http, INFER, v2_body(rows)),
                _asking("HTTP", mlflow, "/invocations", mlflow_body(rows)),
                _asking("HTTP", bentoml, "/predict", bentoml_body(rows)),
            ]
            yield from _compare(setting, f"{rows} rows, HTTP", ours, others)
            ours = _asking("GRPC", setting.address, MODEL, grpc_body(rows))
            others = [_asking("GRPC", grpc, MODEL, grpc_body(rows))]
            yield from _compare(setting, f"{rows} rows, gRPC", ours, others)


def _asking(kind: str, address: str, path: str, body: bytes) -> Callable[[], Load]:
    return lambda: load(kind, address, path, body, seconds=SECONDS)


def _compare(
    setting: Setting, what: str, ours: Callable[[], Load], others: list[Callable[[], Load]]
) -> Iterator[Measurement]:
    """Compare with the best of the others, in turns."""
    own: list[Load] = []
    theirs: list[list[Load]] = [[] for _ in others]
    for _ in range(setting.scale.repetitions):
        own.append(ours())
        for found, other in zip(theirs, others, strict=True):
            found.append(other())
    failed = [f for group in (own, *theirs) for f in group if f.failures]
    if failed:
        count, sample = sum(f.failures for f in failed), failed[0].sample
        raise RuntimeError(f"{what}: {count} requests failed: {sample}")
    best = max(theirs, key=lambda group: statistics.median(found.rate for found in group))
    rates, best_rates = [f.rate for f in own], [f.rate for f in best]
    ratio = statistics.median(rates) / statistics.median(best_rates)
    yield Measurement(f"{what}, requests/s", ratio, rates, best_rates)
    tails, best_tails = [f.p99 for f in own], [f.p99 for f in best]
    ratio = statistics.median(tails) / statistics.median(best_tails)
    yield Measurement(f"{what}, p99", ratio, tails, best_tails)


def _swap(setting: Setting) -> Iterator[Measurement]:
    """Swap versions under constant load: nothing fails, and the tail stays short."""
    steady, swapping, failures = [], [], 0
    for turn in range(setting.scale.repetitions):
        with Steady(setting.address, MODEL, [v2_body(1).decode()], rows=1) as traffic:
            result: list[Load] = []
            steady.append(load("HTTP", setting.address, INFER, v2_body(1), seconds=4).p99)
            asking = threading.Thread(
                target=lambda r=result: r.append(
                    load("HTTP", setting.address, INFER, v2_body(1), seconds=8)
                )
            )
            asking.start()
            setting.deploy(setting.versions[(turn + 1) % 2])
            asking.join()
            swapping.append(result[0].p99)
            failures += result[0].failures + len(traffic.tally.failures)
    yield Measurement("swap, failed requests", failures, [failures], [])
    ratio = statistics.median(swapping) / statistics.median(steady)
    yield Measurement("swap, p99 against steady", ratio, swapping, steady)


def _rollback(setting: Setting, bar: str, *, keep_warm: bool) -> Measurement:
    """Measure from the command to the first answer of the old version."""
    took, starts = [], []
    for _ in range(setting.scale.repetitions):
        with setting.client() as client:
            live = client.deployments.get(MODEL, environment=ENVIRONMENT)
            now = next(r.version for r in live.revisions if r.number == live.live_revision)
        old, new = now, next(v for v in setting.versions if v != now)
        starts.append(setting.deploy(new, keep_warm=keep_warm))
        begun = time.perf_counter()
        with setting.client() as client:
            client.deployments.rollback(MODEL, environment=ENVIRONMENT)
            while _answering(setting) != old.rpartition("/")[2]:
                time.sleep(0.005)
            took.append(time.perf_counter() - begun)
            client.deployments.wait(MODEL, environment=ENVIRONMENT, timeout=60)
    value = statistics.median(took) - (0 if keep_warm else statistics.median(starts))
    return Measurement(bar, value, took, starts)


def _answering(setting: Setting) -> str:
    request = urllib.request.Request(
        f"http://{setting.address}{INFER}",
        data=v2_body(1),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - ours
        return str(answer.headers["modelyard-version"])


if __name__ == "__main__":
    main("deployer", measure)
