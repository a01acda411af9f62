"""What a process says of itself, by the gRPC health protocol.

`python -m services.suite.health 127.0.0.1:7071` has status 0 when a service serves there, else 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LOOK_SECONDS = 5.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def until_serving(address: str) -> None:
    """Return once the health service says SERVING."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await stub.Check(  # type: ignore[attr-defined]  # the stubs lack it
                    health_pb2.HealthCheckRequest(), timeout=1
                )
                if answer.status == _SERVING:
                    return
            await asyncio.sleep(0.05)


async def until_not_serving(address: str) -> None:
    """Return once the health service says NOT_SERVING, which it never does while it starts."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                watch = stub.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
                async for answer in watch:
                    if answer.status == _NOT_SERVING:
                        return
            await asyncio.sleep(1)


async def _serves(address: str) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            await until_serving(address)
            return True
    return False


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(_serves(sys.argv[1])) else 1)
