"""The bars against the rival: interleaved loads, ratios of medians."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.metadata.generators import Generator, LoadError
from benchmarks.metadata.ours import OurServer
from benchmarks.metadata.rival import Rival
from benchmarks.runner import Measurement, Scale

SECONDS = 1.5
WARM_SECONDS = 0.5
NAMES = 20
WRITERS = 16
MOVES = 20  # even: each alias ends where it began
POINTS = 100_000
MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Pair:
    """Both servers on one kind of database, and who loads them."""

    kind: str
    scale: Scale
    server: OurServer
    rival: Rival
    ours: Generator
    theirs: Generator

    def bar(self, name: str) -> str:
        """Return a bar's full name."""
        return f"{self.kind}: {name}"


def measure(pair: Pair) -> Iterator[Measurement]:
    """Measure every bar of one kind of database; what fails is told of and left unmeasured."""
    for part in (_logging, _training, _creating, _aliases, _searches, _history):
        yield from told(part(pair))


def told(measurements: Iterator[Measurement]) -> Iterator[Measurement]:
    """Pass measurements on until one fails, and say why it did."""
    try:
        yield from measurements
    except LoadError as error:
        print(f"not measured: {error}", file=sys.stderr, flush=True)


def _logging(pair: Pair) -> Iterator[Measurement]:
    yield _compared(pair, "log one metric, 1 client", "log_metric", 1)
    spent: tuple[list[float], list[float]] = ([], [])
    yield _compared(pair, "log one metric, 8 clients", "log_metric", 8, spent=spent)
    yield _ratio(pair.bar("server CPU per logged metric, seconds"), *spent)


def _training(pair: Pair) -> Iterator[Measurement]:
    # A million: the sender's start, a second, is not what is measured.
    counts = (1_000_000, 2_000 if pair.scale.quick else 10_000)

    def deliver(load: Generator, count: int) -> float:
        return count / load.run("training", requests=1, count=count).elapsed

    found = _turns(
        pair.bar("log_metric from training, against the best setting"),
        pair.scale,
        partial(deliver, pair.ours, counts[0]),
        partial(deliver, pair.theirs, counts[1]),
    )
    yield found
    delivered = pair.bar("log_metric from training, delivered metrics/s")
    yield Measurement(delivered, statistics.median(found.ours), found.ours, [])
    calls = [
        pair.ours.run("training_calls", requests=50_000) for _ in range(pair.scale.repetitions)
    ]
    medians = [MICROSECONDS * load.median for load in calls]
    tails = [MICROSECONDS * load.p99 for load in calls]
    yield Measurement(pair.bar("log_metric call, median"), statistics.median(medians), medians, [])
    yield Measurement(pair.bar("log_metric call, p99"), statistics.median(tails), tails, [])


def _creating(pair: Pair) -> Iterator[Measurement]:
    yield _compared(pair, "batch of 1,000 metrics", "log_batch", 1, minimum=3)
    yield _compared(pair, "create run, 8 clients", "create_run", 8, {"model": "made"})
    made = {"model": "made", "artifact": _push(pair.server)}
    yield _compared(pair, "create version, 8 clients", "create_version", 8, made)


def _aliases(pair: Pair) -> Iterator[Measurement]:
    artifact = _push(pair.server)
    targets, expected = [], []
    with pair.server.client() as client:
        for number in range(NAMES):
            model = f"served-{number}"
            version = client.versions.create(model, artifact, aliases=["production"])
            targets.append(f"{model}@production")
            expected.append(version.name)
    own: dict[str, Any] = {"targets": targets, "expected": expected}
    for clients in (1, 8):
        name = f"version by alias, {clients} client{'s' * (clients > 1)}"
        yield _compared(pair, name, "get_alias", clients, own, {"names": NAMES})
    loads = [
        pair.ours.run("resolver", seconds=SECONDS, **own) for _ in range(pair.scale.repetitions)
    ]
    rates = [1000 * load.requests / load.elapsed for load in loads]
    yield Measurement(pair.bar("resolver, answers/s"), statistics.median(rates), rates, [])
    yield _staleness(pair, artifact)


def _staleness(pair: Pair, artifact: str) -> Measurement:
    """Move aliases from many clients: how long until the resolver says so, p99."""
    with pair.server.client() as client:
        targets = [
            [
                client.versions.create(f"moved-{number}", artifact, aliases=aliases).name
                for aliases in (["production"], [])
            ]
            for number in range(WRITERS)
        ]
    tails = [
        pair.ours.run("staleness", clients=WRITERS, requests=MOVES, targets=targets).p99
        for _ in range(pair.scale.repetitions)
    ]
    name = pair.bar("resolver, staleness p99, 16 writers")
    return Measurement(name, statistics.median(tails), tails, [])


def _searches(pair: Pair) -> Iterator[Measurement]:
    yield _compared(pair, "search, top 100 by a metric", "search_top", 1, minimum=3)
    for kind in ("param", "metric", "tag"):
        arguments: dict[str, Any] = {"kind": kind, "matches": min(pair.scale.runs // 1000, 100)}
        name = f"search, selective {kind}"
        yield _compared(pair, name, "search_filter", 1, arguments, arguments, minimum=3)
    slowest = [
        pair.ours.run("search_unselective", requests=3, minimum=1).p99
        for _ in range(pair.scale.repetitions)
    ]
    yield Measurement(pair.bar("search, unselective"), max(slowest), slowest, [])


def _history(pair: Pair) -> Iterator[Measurement]:
    arguments: dict[str, Any] = {"points": POINTS, "run": "history"}
    pair.ours.run("log_history", requests=1, **arguments)
    name = "metric history of 100,000 points"
    yield _compared(pair, name, "history", 1, arguments, arguments, minimum=1)


def _compared(  # noqa: PLR0917 - read as a line of the table
    pair: Pair,
    name: str,
    operation: str,
    clients: int,
    own: dict[str, Any] | None = None,
    other: dict[str, Any] | None = None,
    *,
    minimum: int = 20,
    spent: tuple[list[float], list[float]] | None = None,
) -> Measurement:
    """Measure one operation on both sides, requests a second; note CPU seconds a request."""

    def rate(
        load: Generator, server: OurServer | Rival, arguments: dict[str, Any], cpu: Any
    ) -> float:
        before = server.cpu_seconds()
        found = load.run(operation, clients=clients, seconds=SECONDS, minimum=minimum, **arguments)
        if cpu is not None:
            cpu.append((server.cpu_seconds() - before) / found.requests)
        return found.requests / found.elapsed

    ours_cpu, theirs_cpu = spent or (None, None)
    for load, arguments in ((pair.ours, own), (pair.theirs, other)):
        load.run(operation, clients=clients, seconds=WARM_SECONDS, minimum=1, **(arguments or {}))
    return _turns(
        pair.bar(name),
        pair.scale,
        lambda: rate(pair.ours, pair.server, own or {}, ours_cpu),
        lambda: rate(pair.theirs, pair.rival, other or {}, theirs_cpu),
    )


def _turns(
    bar: str, scale: Scale, ours: Callable[[], float], other: Callable[[], float]
) -> Measurement:
    own, others = [], []
    for _ in range(scale.repetitions):
        own.append(ours())
        others.append(other())
    return _ratio(bar, own, others)


def _ratio(bar: str, own: list[float], others: list[float]) -> Measurement:
    value = statistics.median(own) / statistics.median(others)
    return Measurement(bar, value, own, others)


def _push(server: OurServer) -> str:
    """Store a few bytes for versions to hold."""
    with tempfile.TemporaryDirectory() as folder, server.client() as client:
        (Path(folder) / "model.txt").write_text("a model")
        return client.artifacts.push(folder).name
