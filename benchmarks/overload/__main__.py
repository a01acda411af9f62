"""`python -m benchmarks.overload [--quick]`: four times as many calls as the services can answer.

A closed generator finds the peak; an open one then calls at four times its rate, whatever becomes
of the calls before. Server and generators share the machine.
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

CALLERS = 16
OVERLOAD = 4.0
CALM = 0.6
RUNS = 1_000
HEALTH_EVERY = 0.1
MILLISECONDS = 1_000


@dataclass(frozen=True, slots=True)
class Caller:
    """A generator that calls as one principal."""

    process: subprocess.Popen[str]
    address: str
    token: str

    def begin(self, **order: float) -> None:
        """Begin to call; see `generator.Order`."""
        assert self.process.stdin is not None
        line = {"address": self.address, "token": self.token, **order}
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def seen(self) -> dict[str, Any]:
        """Wait for the end; return `generator.Seen`."""
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def call(self, **order: float) -> dict[str, Any]:
        """Call, and return what was seen."""
        self.begin(**order)
        return self.seen()


def measure(scale: Scale) -> Iterator[Measurement]:
    """Measure every bar of the group, in one server."""
    seconds = 10.0 if scale.quick else 60.0
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), runs=RUNS) as server,
        _calling(server, "user:many") as many,
        _calling(server, "user:few") as few,
    ):
        many.call(seconds=2, callers=CALLERS)
        peaks = [_goodput(many.call(seconds=4, callers=CALLERS)) for _ in range(3)]
        peak = statistics.median(peaks)
        alone = few.call(seconds=4, callers=1)
        with _health(server) as unhealthy:
            many.begin(seconds=seconds, rate=OVERLOAD * peak)
            beside = few.call(seconds=seconds, callers=1)
            overload = many.seen()
        after = many.call(seconds=4, rate=CALM * peak)
    yield from _of_overload(overload, peaks)
    yield Measurement("health checks failed", unhealthy.count(False), [len(unhealthy)], [])
    yield Measurement("calm again, share answered", _share(after), [after["answered"]["p99"]], [])
    yield Measurement("who calls rarely, share answered", _share(beside), [_goodput(beside)], [])
    medians = [seen["answered"]["median"] * MILLISECONDS for seen in (beside, alone)]
    yield Measurement("who calls rarely, median", medians[0], [medians[0]], [medians[1]])


def _of_overload(seen: dict[str, Any], peaks: list[float]) -> Iterator[Measurement]:
    goodput, peak = _goodput(seen), statistics.median(peaks)
    yield Measurement("goodput, of the peak", goodput / peak, [goodput], peaks)
    refused = seen["codes"].get("RESOURCE_EXHAUSTED", 0)
    p99 = seen["refused"]["p99"] * MILLISECONDS
    yield Measurement("refusals, p99", p99, [seen["refused"]["median"] * MILLISECONDS], [])
    told = seen["told_when"] / refused if refused else 0.0
    yield Measurement("refusals that say when to come again", told, [refused], [seen["late"]])
    other = sum(seen["codes"].values()) - refused - seen["codes"].get("OK", 0)
    yield Measurement("calls that ended otherwise", other, [sum(seen["codes"].values())], [])


def _goodput(seen: dict[str, Any]) -> float:
    return float(seen["codes"].get("OK", 0) / seen["elapsed"])


def _share(seen: dict[str, Any]) -> float:
    return float(seen["codes"].get("OK", 0) / sum(seen["codes"].values()))


@contextmanager
def _calling(server: OurServer, principal: str) -> Iterator[Caller]:
    with server.client() as client:
        token = client.tokens.create(principal, roles={"default": "contributor"}).secret
    command = (sys.executable, "-m", "benchmarks.overload.generator")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Caller(process, server.address, token)
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
    main("overload", measure)
