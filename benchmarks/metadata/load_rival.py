"""The load generator of the rival: its public client, in a process of its own.

Run by the rival's interpreter as a plain file; `generating` lies beside it.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import Any

import mlflow  # the rival's environment has it
from generating import Operation, Prepare, serve  # type: ignore[import-not-found]
from mlflow import MlflowClient
from mlflow.entities import Metric

URL = os.environ["BENCHMARK_SERVER"]
EXPERIMENT = "1"
HISTORY_RUN = "f" * 32
mlflow.set_tracking_uri(URL)
CLIENTS = [MlflowClient(URL) for _ in range(8)]


def log_metric(_: dict[str, Any]) -> Operation:
    """Log one metric to the client's own run; answered once it is committed."""
    runs = [client.create_run(EXPERIMENT).info.run_id for client in CLIENTS]

    def once(number: int, index: int) -> bool:
        CLIENTS[number].log_metric(runs[number], "loss", index / 7, step=index, synchronous=True)
        return True

    return once


def log_batch(_: dict[str, Any]) -> Operation:
    """Log a batch of 1,000 metrics."""
    run = CLIENTS[0].create_run(EXPERIMENT).info.run_id

    def once(number: int, index: int) -> bool:
        now = int(time.time() * 1000)
        points = [Metric(f"k{i % 10}", i / 7, now, index * 1000 + i) for i in range(1000)]
        CLIENTS[number].log_batch(run, metrics=points, synchronous=True)
        return True

    return once


def training(arguments: dict[str, Any]) -> Operation:
    """Log a number of metrics without waiting for any, then wait for all of them."""
    count: int = arguments["count"]
    experiment = mlflow.get_experiment(EXPERIMENT).name
    mlflow.set_experiment(experiment)

    def once(number: int, index: int) -> bool:
        with mlflow.start_run() as run:
            for step in range(count):
                mlflow.log_metric("loss", step / 7, step=step, synchronous=False)
            mlflow.flush_async_logging()
        return len(CLIENTS[0].get_metric_history(run.info.run_id, "loss")) == count

    return once


def create_run(_: dict[str, Any]) -> Operation:
    """Create a run with a name of its own."""

    def once(number: int, index: int) -> bool:
        title = uuid.uuid4().hex
        return bool(CLIENTS[number].create_run(EXPERIMENT, run_name=title).info.run_name == title)

    return once


def create_version(_: dict[str, Any]) -> Operation:
    """Register a version."""
    name = uuid.uuid4().hex
    CLIENTS[0].create_registered_model(name)
    run = CLIENTS[0].create_run(EXPERIMENT).info
    source = f"{run.artifact_uri}/model"

    def once(number: int, index: int) -> bool:
        title = uuid.uuid4().hex
        found = CLIENTS[number].create_model_version(
            name, source, run.run_id, description=title, await_creation_for=0
        )
        return bool(found.status == "READY" and found.description == title)

    return once


def get_alias(arguments: dict[str, Any]) -> Operation:
    """Get the version an alias points to; the alias differs from request to request."""
    count: int = arguments["names"]
    names = [uuid.uuid4().hex for _ in range(count)]
    run = CLIENTS[0].create_run(EXPERIMENT).info
    for name in names:
        CLIENTS[0].create_registered_model(name)
        CLIENTS[0].create_model_version(
            name, f"{run.artifact_uri}/model", run.run_id, await_creation_for=0
        )
        CLIENTS[0].set_registered_model_alias(name, "production", "1")

    def once(number: int, index: int) -> bool:
        name = names[(index * 7 + number) % count]
        found = CLIENTS[number].get_model_version_by_alias(name, "production")
        return bool(found.name == name and str(found.version) == "1")

    return once


def search_top(_: dict[str, Any]) -> Operation:
    """Return the 100 best runs by a metric; the metric and the direction change."""

    def once(number: int, index: int) -> bool:
        key, down = f"m{index % 5}", index % 2 == 0
        order = [f"metrics.{key} {'DESC' if down else 'ASC'}"]
        found = CLIENTS[number].search_runs([EXPERIMENT], max_results=100, order_by=order)
        values = [run.data.metrics[key] for run in found if key in run.data.metrics]
        return len(values) == 100 and values == sorted(values, reverse=down)

    return once


def search_filter(arguments: dict[str, Any]) -> Operation:
    """Find the few runs that a predicate leaves; its value changes."""
    kind: str = arguments["kind"]

    def once(number: int, index: int) -> bool:
        place = (index * 37 + number) % 1000
        limit = 0.9985 + place / 1e6
        text = {
            "param": f"params.p1 = 'v{place}'",
            "tag": f"tags.team = 't{place}'",
            "metric": f"metrics.m{index % 5} > {limit}",
        }[kind]
        found = CLIENTS[number].search_runs([EXPERIMENT], text, max_results=100)
        if kind == "metric":
            return all(run.data.metrics[f"m{index % 5}"] > limit for run in found)
        return len(found) == int(arguments["matches"])

    return once


def history(arguments: dict[str, Any]) -> Operation:
    """Read the whole history of a metric."""
    points: int = arguments["points"]

    def once(number: int, index: int) -> bool:
        found = CLIENTS[number].get_metric_history(HISTORY_RUN, "loss")
        return len(found) == points and {point.value for point in found[-1:]} <= {
            (points - 1) / 2,
            0.0,
        }

    return once


OPERATIONS: dict[str, Prepare] = {
    "log_metric": log_metric,
    "log_batch": log_batch,
    "training": training,
    "create_run": create_run,
    "create_version": create_version,
    "get_alias": get_alias,
    "search_top": search_top,
    "search_filter": search_filter,
    "history": history,
}


if __name__ == "__main__":
    serve(OPERATIONS)
