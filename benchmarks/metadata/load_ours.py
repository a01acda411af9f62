"""The load generator of ours: the public client, in a process of its own."""

from __future__ import annotations

import os
import time
import uuid
from itertools import islice
from typing import Any

import modelyard
from modelyard.metadata.v1 import version_pb2

from benchmarks.metadata.generating import Operation, Prepare, serve

MODEL = "seeded"
READY = version_pb2.VERSION_STATE_READY
DELIVERY_SECONDS = 120.0
STALE_SECONDS = 5.0

CLIENTS = [
    modelyard.Client(
        os.environ["BENCHMARK_SERVER"], token=os.environ["BENCHMARK_TOKEN"], project="default"
    )
    for _ in range(8)
]


def log_metric(_: dict[str, Any]) -> Operation:
    """Log one metric to the client's own run; answered once it is committed."""
    writers = [client.runs.writer(client.runs.create("logged")) for client in CLIENTS]

    def once(number: int, index: int) -> bool:
        writers[number].log({"loss": index / 7}, step=index)
        return True

    return once


def log_batch(_: dict[str, Any]) -> Operation:
    """Log a batch of 1,000 metrics."""
    writer = CLIENTS[0].runs.writer(CLIENTS[0].runs.create("logged"))

    def once(number: int, index: int) -> bool:
        values = {f"k{key}": [step * key / 7 for step in range(100)] for key in range(10)}
        writer.log_many(values, steps=range(index * 100, index * 100 + 100))
        return True

    return once


def training(arguments: dict[str, Any]) -> Operation:
    """Log a number of metrics without waiting for any, then wait until all are committed."""
    count: int = arguments["count"]

    def once(number: int, index: int) -> bool:
        with modelyard.start_run("trained") as run:
            for step in range(count):
                modelyard.log_metric("loss", step / 7, step=step)
        deadline = time.monotonic() + DELIVERY_SECONDS
        while _committed(run.name) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return _committed(run.name) == count

    return once


def training_calls(arguments: dict[str, Any]) -> Operation:
    """Make one call of `modelyard.log_metric` a request: its cost is the latency."""
    run = modelyard.active_run() or modelyard.start_run("trained").__enter__()

    def once(number: int, index: int) -> bool:
        run.log_metric("loss", index / 7, step=index)
        return True

    return once


def _committed(run: str) -> int:
    found = CLIENTS[0].runs.get(run).metrics
    return found[0].count if found else 0


def log_history(arguments: dict[str, Any]) -> Operation:
    """Log the points that `history` reads."""
    points: int = arguments["points"]

    def once(number: int, index: int) -> bool:
        run = CLIENTS[0].runs.create("logged", run_id=arguments["run"])
        with CLIENTS[0].runs.writer(run) as writer:
            values = [step / 2 for step in range(points)]
            writer.log_many({"loss": values}, steps=range(points))
        return True

    return once


def history(arguments: dict[str, Any]) -> Operation:
    """Read the whole history of a metric."""
    points: int = arguments["points"]

    def once(number: int, index: int) -> bool:
        found = CLIENTS[number].runs.metric_points(f"logged/{arguments['run']}", "loss")
        return len(found) == points and found.values[-1] == (points - 1) / 2

    return once


def search_top(_: dict[str, Any]) -> Operation:
    """Return the 100 best runs by a metric; the metric and the direction change."""

    def once(number: int, index: int) -> bool:
        key, down = f"m{index % 5}", index % 2 == 0
        order = f"metrics.{key}{' desc' if down else ''}"
        found = list(
            islice(CLIENTS[number].runs.search(model=MODEL, order_by=order, page_size=100), 100)
        )
        values = [metric.last for run in found for metric in run.metrics if metric.key == key]
        return len(values) == 100 and values == sorted(values, reverse=down)

    return once


def search_filter(arguments: dict[str, Any]) -> Operation:
    """Find the few runs that a predicate leaves; its value changes."""
    kind: str = arguments["kind"]

    def once(number: int, index: int) -> bool:
        place = (index * 37 + number) % 1000
        limit = 0.9985 + place / 1e6
        text = {
            "param": f'params.p1 = "v{place}"',
            "tag": f'tags.team = "t{place}"',
            "metric": f"metrics.m{index % 5} > {limit}",
        }[kind]
        found = list(
            islice(CLIENTS[number].runs.search(model=MODEL, filter=text, page_size=100), 100)
        )
        if kind == "metric":
            return all(
                metric.last > limit
                for run in found
                for metric in run.metrics
                if metric.key == f"m{index % 5}"
            )
        return len(found) == int(arguments["matches"])

    return once


def search_unselective(_: dict[str, Any]) -> Operation:
    """Ask what nearly every run fulfils but for the last condition: an answer, or a clear no."""

    def once(number: int, index: int) -> bool:
        text = (
            f'metrics.m0 > 0.{index % 5} AND metrics.m1 > 0.1 AND params.p2 = "same"'
            f' AND tags.kind != "none-{index}" AND params.p3 != "x"'
        )
        try:
            list(islice(CLIENTS[number].runs.search(model=MODEL, filter=text, page_size=100), 100))
        except modelyard.ModelyardError as error:
            return error.reason == "LIMIT_EXCEEDED"
        return True

    return once


def page(_: dict[str, Any]) -> Operation:
    """Read the first 50 runs of a list."""

    def once(number: int, index: int) -> bool:
        found = CLIENTS[number].runs.search(
            model=MODEL, order_by=["create_time", "create_time desc"][index % 2]
        )
        return len(list(islice(found, 50))) == 50

    return once


def get_seeded(arguments: dict[str, Any]) -> Operation:
    """Get a seeded version by an alias of its own."""
    count: int = arguments["versions"]

    def once(number: int, index: int) -> bool:
        place = (index * 7919) % count + 1
        return CLIENTS[number].versions.get(f"{MODEL}@a{place}").name.endswith(f"/{place}")

    return once


def get_alias(arguments: dict[str, Any]) -> Operation:
    """Get the version an alias points to; the alias differs from request to request."""
    names: list[str] = arguments["targets"]
    expected: list[str] = arguments["expected"]

    def once(number: int, index: int) -> bool:
        place = (index * 7 + number) % len(names)
        return CLIENTS[number].versions.get(names[place]).name == expected[place]

    return once


def resolver(arguments: dict[str, Any]) -> Operation:
    """Ask a resolver that follows the registry; a thousand times a request."""
    targets, expected = arguments["targets"], arguments["expected"]
    found = CLIENTS[0].resolver(*(target.partition("@")[0] for target in targets)).open()

    def once(number: int, index: int) -> bool:
        place = index % len(targets)
        target = targets[place]
        for _ in range(1000):
            version = found.resolve(target)
        return bool(version.name == expected[place])

    return once


def staleness(arguments: dict[str, Any]) -> Operation:
    """Move an alias, each client one of its own; count from its answer to the resolver's."""
    targets: list[list[str]] = arguments["targets"]
    models = [first.split("/")[3] for first, _ in targets]
    found = CLIENTS[0].resolver(*models).open()

    def once(number: int, index: int) -> bool | float:
        wanted = targets[number][(index + 1) % 2]
        CLIENTS[number % len(CLIENTS)].aliases.set(models[number], "production", version=wanted)
        moved = time.perf_counter()
        while found.resolve(f"{models[number]}@production").name != wanted:
            if time.perf_counter() > moved + STALE_SECONDS:
                return False
            time.sleep(0.001)
        return time.perf_counter() - moved

    return once


def create_run(arguments: dict[str, Any]) -> Operation:
    """Create a run with a name of its own."""

    def once(number: int, index: int) -> bool:
        title = uuid.uuid4().hex
        run = CLIENTS[number].runs.create(arguments["model"], display_name=title)
        return run.display_name == title

    return once


def create_version(arguments: dict[str, Any]) -> Operation:
    """Register a version of bytes that are there; it must come back READY."""

    def once(number: int, index: int) -> bool:
        title = uuid.uuid4().hex
        version = CLIENTS[number].versions.create(
            arguments["model"], arguments["artifact"], description=title
        )
        return version.state == READY and version.description == title

    return once


OPERATIONS: dict[str, Prepare] = {
    "log_metric": log_metric,
    "log_batch": log_batch,
    "training": training,
    "training_calls": training_calls,
    "log_history": log_history,
    "history": history,
    "search_top": search_top,
    "search_filter": search_filter,
    "search_unselective": search_unselective,
    "page": page,
    "get_alias": get_alias,
    "get_seeded": get_seeded,
    "resolver": resolver,
    "staleness": staleness,
    "create_run": create_run,
    "create_version": create_version,
}


if __name__ == "__main__":
    serve(OPERATIONS)
