"""`python -m benchmarks.overload [--quick] [--bare]`: four times what the services can answer.

A closed generator finds the peak; an open one then calls at four times its rate, whatever becomes
of the calls before: as one principal, as ten, and with our own client's retries. Services,
generators and the shipped proxy, which `--bare` leaves out, share the machine.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.metadata.ours import OurServer, running
from benchmarks.runner import Measurement, Scale, main
from tests.servers.proxy import Proxy, proxied

CALLERS = 16
OVERLOAD = 4.0
CALM = 0.6
GREEDY = 10
SELDOM = 5.0
"""Calls a second of who calls rarely."""
RUNS = 1_000
HEALTH_EVERY = 0.1
MILLISECONDS = 1_000
Bar = tuple[str, float, list[float]]
"""What it is called, its value, and what it was made of."""
ATTEMPTS = r"http\.suite\.downstream_rq_total"
"""The proxy's counter of calls."""
Seen = dict[str, Any]
"""What a generator saw; see `generator.Seen`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A generator that calls as one principal or several."""

    process: subprocess.Popen[str]
    address: str
    tokens: list[str]

    def begin(self, *, principals: int = 1, **order: Any) -> None:
        """Begin to call, as so many principals; see `generator.Order`."""
        assert self.process.stdin is not None
        line = {"address": self.address, "tokens": self.tokens[:principals], **order}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def seen(self) -> Seen:
        """Wait for the end."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def call(self, **order: Any) -> Seen:
        """Call, and return what was seen."""
        self.begin(**order)
        return self.seen()


@dataclass(frozen=True, slots=True)
class Scene:
    """Who calls whom."""

    server: OurServer
    many: Caller
    few: Caller
    seconds: float
    """How long an overload lasts."""

    def peaks(self) -> list[float]:
        """Return how many calls a second are answered when callers wait for their answers."""
        self.many.call(seconds=2, callers=CALLERS)
        return [_goodput(self.many.call(seconds=4, callers=CALLERS)) for _ in range(3)]

    def overload(self, greedy: str, principals: int, peaks: list[float]) -> Iterator[Measurement]:
        """Overload the services, then let them be; yield the bars of either."""
        peak = statistics.median(peaks)
        with _health(self.server) as unhealthy:
            self.many.begin(principals=principals, seconds=self.seconds, rate=OVERLOAD * peak)
            beside = self.few.call(seconds=self.seconds, rate=SELDOM)
            overload = self.many.seen()
        after = self.many.call(seconds=4, rate=CALM * peak, retries=True)
        bars: list[Bar] = [
            *_of_overload(overload, peak),
            ("health checks failed", unhealthy.count(False), [len(unhealthy)]),
            ("calm again, share answered", _share(after), [after["answered"]["p99"]]),
            *_of_seldom(beside),
        ]
        for bar, value, ours in bars:
            yield Measurement(f"{greedy}: {bar}", value, ours, peaks)

    def amplification(self, proxy: Proxy, peak: float) -> Measurement:
        """Overload the services with our own client, which tries again what is refused."""
        before = proxy.counted(ATTEMPTS)
        seen = self.many.call(seconds=self.seconds, rate=OVERLOAD * peak, retries=True)
        attempts, calls = proxy.counted(ATTEMPTS) - before, sum(seen["codes"].values())
        bar = "attempts of our client for each call"
        return Measurement(bar, attempts / calls, [attempts, calls, seen["codes"].get("OK", 0)], [])


def behind_proxy(scale: Scale) -> Iterator[Measurement]:
    """Measure services with the shipped proxy in front."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), runs=RUNS) as server:
        port = int(server.address.rpartition(":")[2])
        with (
            proxied(Path(folder), port) as proxy,
            _scene(server, proxy.address, scale) as scene,
        ):
            peaks = scene.peaks()
            yield from scene.overload("one greedy", 1, peaks)
            yield from scene.overload("ten greedy", GREEDY, peaks)
            yield scene.amplification(proxy, statistics.median(peaks))


def bare(scale: Scale) -> Iterator[Measurement]:
    """Measure services that are called directly."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), runs=RUNS) as server,
        _scene(server, server.address, scale) as scene,
    ):
        peaks = scene.peaks()
        yield from scene.overload("one greedy", 1, peaks)
        yield from scene.overload("ten greedy", GREEDY, peaks)


def _of_overload(seen: Seen, peak: float) -> Iterator[Bar]:
    goodput, calls = _goodput(seen), sum(seen["codes"].values())
    refused = seen["codes"].get("RESOURCE_EXHAUSTED", 0)
    other = calls - refused - seen["codes"].get("OK", 0)
    yield "goodput, of the peak", goodput / peak, [goodput, calls]
    times = [seen["refused"][part] * MILLISECONDS for part in ("p99", "median")]
    yield "refusals, p99", times[0], [times[1], seen["late"] * MILLISECONDS]
    yield "refusals that say when", seen["told_when"] / refused if refused else 0, [refused]
    yield "calls that ended otherwise", other, [calls]


def _of_seldom(seen: Seen) -> Iterator[Bar]:
    yield "who calls rarely, share answered", _share(seen), [sum(seen["codes"].values())]
    times = [seen["answered"][part] * MILLISECONDS for part in ("median", "p99")]
    yield "who calls rarely, median", times[0], [times[1]]


def _goodput(seen: Seen) -> float:
    return float(seen["codes"].get("OK", 0) / seen["elapsed"])


def _share(seen: Seen) -> float:
    return float(seen["codes"].get("OK", 0) / sum(seen["codes"].values()))


@contextmanager
def _scene(server: OurServer, address: str, scale: Scale) -> Iterator[Scene]:
    greedy = [f"user:greedy-{number}" for number in range(GREEDY)]
    with (
        _calling(server, address, greedy) as many,
        _calling(server, address, ["user:few"]) as few,
    ):
        yield Scene(server, many, few, seconds=10.0 if scale.quick else 60.0)


@contextmanager
def _calling(server: OurServer, address: str, principals: list[str]) -> Iterator[Caller]:
    with server.client() as client:
        tokens = [
            client.tokens.create(principal, roles={"default": "contributor"}).secret
            for principal in principals
        ]
    command = (sys.executable, "-m", "benchmarks.overload.generator")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Caller(process, address, tokens)
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def _health(server: OurServer) -> Iterator[list[bool]]:
    """Ask for the health all the while; give whether each answer was SERVING, within a second."""
    found: list[bool] = []
    ended = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(server.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while not ended.wait(HEALTH_EVERY):
                try:
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    found.append(False)
                else:
                    found.append(answer.status == health_pb2.HealthCheckResponse.SERVING)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield found
    finally:
        ended.set()
        asking.join()


if __name__ == "__main__":
    main("overload", behind_proxy, {"bare": bare})
