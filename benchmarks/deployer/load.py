"""Clients that ask for predictions as fast as they are answered; nothing is tried again.

Run as `python -m benchmarks.deployer.load HTTP|GRPC HOST:PORT PATH_OR_MODEL CLIENTS SECONDS`, the
body on standard input: prints one JSON line with requests a second, the median and 99th percentile
in milliseconds, and how many failed. For HTTP the body is sent as it is; for gRPC it is a
serialised ModelInferRequest.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass, field

import grpc
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc

WARM_UP = 0.2


@dataclass(slots=True)
class Seen:
    """What the clients got: when each answer came, and how long it took, in seconds."""

    answers: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0


async def http_client(host: str, port: int, request: bytes, until: float, seen: Seen) -> None:
    """Ask over one kept connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        while (begun := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            ended = time.perf_counter()
            if head.split(b" ", 2)[1] == b"200" and body.startswith(b"{"):
                seen.answers.append((ended, ended - begun))
            else:
                seen.failures += 1
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
            except grpc.aio.AioRpcError:
                seen.failures += 1
                continue
            ended = time.perf_counter()
            if answer.outputs:
                seen.answers.append((ended, ended - begun))
            else:
                seen.failures += 1


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
    quantiles = statistics.quantiles(counted, n=100)
    result = {
        "rate": len(counted) / (float(seconds) * (1 - WARM_UP)),
        "p50": quantiles[49] * 1_000,
        "p99": quantiles[98] * 1_000,
        "failures": seen.failures,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
