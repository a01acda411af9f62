"""Clients that ask for predictions as fast as they are answered; nothing is tried again.

Run as `python -m benchmarks.deployer.load HTTP|GRPC HOST:PORT PATH_OR_MODEL CLIENTS SECONDS`, the
body on standard input: prints one JSON line with requests a second, the median and 99th percentile
in milliseconds, how many failed and how the first of them did. For HTTP the body is sent as it is;
for gRPC it is a serialised ModelInferRequest.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field

import grpc
import httptools
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

WARM_UP = 0.2
AFTER_FAILURE = 0.05
"""Seconds until a client that failed asks again: a server that refuses all is not flooded."""
_READ = 256 * 1024


@dataclass(slots=True)
class Seen:
    """What the clients got: when each answer came, and how long it took, in seconds."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0
    sample: str = ""

    async def fail(self, how: str) -> None:
        """Count a failure, remember the first, and wait a moment."""
        self.failures += 1
        self.sample = self.sample or how[:300]
        await asyncio.sleep(AFTER_FAILURE)


class Answer:
    """One HTTP answer as it arrives; the callbacks of httptools."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Know that it is all there."""
        self.is_complete = True

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read until it is complete; raise EOFError when the connection ends before."""
        while not self.is_complete:
            if not (data := await reader.read(_READ)):
                raise EOFError("the connection was closed")
            self._parser.feed_data(data)

    @property
    def is_good(self) -> bool:
        """Say whether it is a prediction."""
        return self._parser.get_status_code() == 200 and self.body.startswith((b"{", b"["))

    def __str__(self) -> str:
        """Say what it is."""
        return f"{self._parser.get_status_code()}: {self.body[:200]!r}"


async def http_client(host: str, port: int, request: bytes, until: float, seen: Seen) -> None:
    """Ask over one kept connection, and over a new one after a failure."""
    while time.perf_counter() < until:
        try:
            await _ask_over_one(host, port, request, until, seen)
        except (OSError, EOFError, httptools.HttpParserError) as error:
            await seen.fail(repr(error))


async def _ask_over_one(host: str, port: int, request: bytes, until: float, seen: Seen) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (begun := time.perf_counter()) < until:
            writer.write(request)
            answer = Answer()
            await answer.read(reader)
            ended = time.perf_counter()
            if answer.is_good:
                seen.answers.append((ended, ended - begun))
            else:
                await seen.fail(str(answer))
    finally:
        writer.close()


async def grpc_client(
    address: str, request: pb.ModelInferRequest, until: float, seen: Seen
) -> None:
    """Ask over one channel of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        while (begun := time.perf_counter()) < until:
            try:
                answer = await stub.ModelInfer(request, timeout=30)  # type: ignore[misc]  # aio
            except grpc.aio.AioRpcError as error:
                await seen.fail(f"{error.code()}: {error.details()}")
                continue
            ended = time.perf_counter()
            if answer.outputs:
                seen.answers.append((ended, ended - begun))
            else:
                await seen.fail(f"no outputs: {answer}")


async def ask(kind: str, address: str, path: str, clients: int, seconds: float) -> Seen:
    """Ask with so many clients for so many seconds."""
    body, seen = sys.stdin.buffer.read(), Seen()
    until = time.perf_counter() + seconds
    host, _, port = address.rpartition(":")
    if kind == "HTTP":
        head = f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        work = [http_client(host, int(port), request, until, seen) for _ in range(clients)]
    else:
        message = pb.ModelInferRequest.FromString(body)
        work = [grpc_client(address, message, until, seen) for _ in range(clients)]
    await asyncio.gather(*work)
    return seen


def main() -> None:
    """Ask, and print what came of it."""
    kind, address, path, clients, seconds = sys.argv[1:]
    begun = time.perf_counter()
    seen = asyncio.run(ask(kind, address, path, int(clients), float(seconds)))
    counted = [took for ended, took in seen.answers if ended - begun > WARM_UP * float(seconds)]
    # Too few answers have no percentiles: NaN, by which no bar holds.
    quantiles = statistics.quantiles(counted, n=100) if len(counted) > 1 else [float("nan")] * 99
    result = {
        "rate": len(counted) / (float(seconds) * (1 - WARM_UP)),
        "p50": quantiles[49] * 1_000,
        "p99": quantiles[98] * 1_000,
        "failures": seen.failures,
        "sample": seen.sample,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
