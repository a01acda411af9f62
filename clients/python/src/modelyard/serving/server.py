"""The life of the model server: listen, serve, and leave after a drain.

HTTP (uvicorn) and gRPC share one event loop. The drain: not ready, no new connections, what is in
flight gets `DRAIN_SECONDS` to finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import uvicorn

from modelyard.serving.domain import MAX_REQUEST_BYTES
from modelyard.serving.gate import Gate
from modelyard.serving.servicer import add_to
from modelyard.serving.web import Application

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10
_KEEP_ALIVE_SECONDS = 120  # longer than any proxy's idle time: the proxy closes, never we
_CHANNEL_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a taken port is an error, never shared with a stranger
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0: any free one."""

    host: str
    http_port: int
    grpc_port: int


async def serve(
    gate: Gate, address: Address, stop: asyncio.Event, *, ports_file: Path | None = None
) -> None:
    """Serve until `stop` is set, then drain and return.

    Once listening, the ports are written to `ports_file` as `{"http_port": …, "grpc_port": …}`.
    """
    listener = _bind(address.host, address.http_port)
    grpc_server = grpc.aio.server(options=_CHANNEL_OPTIONS)
    add_to(grpc_server, gate)
    grpc_port = grpc_server.add_insecure_port(f"{address.host}:{address.grpc_port}")
    http_server = _http_server(gate)
    await grpc_server.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(http_server.serve(sockets=[listener]))
        await http_server.listening.wait()
        ports = {"http_port": listener.getsockname()[1], "grpc_port": grpc_port}
        if ports_file is not None:
            _publish(ports_file, ports)
        logger.info("serving", extra={"host": address.host, **ports})
        await stop.wait()
        logger.info("draining", extra={"seconds": DRAIN_SECONDS})
        gate.start_draining()
        http_server.should_exit = True
        await grpc_server.stop(DRAIN_SECONDS)
    gate.close()
    logger.info("stopped")


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to us and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_server(gate: Gate) -> _Server:
    return _Server(
        uvicorn.Config(
            Application(gate),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(False)
    return listener


def _publish(path: Path, ports: dict[str, int]) -> None:
    """Write the ports so that a reader sees all of them or nothing."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(ports))
    part.replace(path)
