"""A gRPC stream that does nothing else: how fast bytes can go between two such processes.

The same library, message size and kind of server and client as ours: no hashing, no disk.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvloop

MESSAGE_BYTES = 1024 * 1024
_OPTIONS = [("grpc.max_receive_message_length", 4 * MESSAGE_BYTES)]


class Handler(grpc.GenericRpcHandler):
    """Takes a stream of bytes, or gives one."""

    def service(self, handler_call_details: Any) -> Any:
        """Return what serves a call."""
        if handler_call_details.method == "/bare/Take":
            return grpc.stream_unary_rpc_method_handler(_take)
        return grpc.unary_stream_rpc_method_handler(_give)


async def _take(requests: AsyncIterator[bytes], _: Any) -> bytes:
    count = 0
    async for data in requests:
        count += len(data)
    return str(count).encode()


async def _give(request: bytes, _: Any) -> AsyncIterator[bytes]:
    piece = os.urandom(MESSAGE_BYTES)
    for _number in range(int(request) // MESSAGE_BYTES):
        yield piece


@contextmanager
def running() -> Iterator[grpc.Channel]:
    """Run the server in a process of its own; give a channel to it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.artifact.bare"], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
            yield channel
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def upload(channel: grpc.Channel, size: int) -> None:
    """Send so many bytes."""
    piece = os.urandom(MESSAGE_BYTES)
    take: Any = channel.stream_unary("/bare/Take")
    answer = take(piece for _ in range(size // MESSAGE_BYTES))
    assert int(answer) == size // MESSAGE_BYTES * MESSAGE_BYTES


def download(channel: grpc.Channel, size: int) -> None:
    """Receive so many bytes."""
    give: Any = channel.unary_stream("/bare/Give")
    received = sum(len(data) for data in give(str(size).encode()))
    assert received == size // MESSAGE_BYTES * MESSAGE_BYTES


async def main() -> None:
    """Serve until killed; print the port."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
