"""Real servers on port 0 for the client to talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from modelyard import Client

Serve = Callable[[Callable[[grpc.Server], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server to which the given function adds services; return its address."""
    servers: list[grpc.Server] = []

    def start(add: Callable[[grpc.Server], None]) -> str:
        server = grpc.server(ThreadPoolExecutor(8))
        add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def connect(serve: Serve) -> Iterator[Callable[[Callable[[grpc.Server], None]], Client]]:
    """Start a server and return a client of it."""
    clients: list[Client] = []

    def start(add: Callable[[grpc.Server], None]) -> Client:
        client = Client(serve(add), token="secret", project="shop")
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close()
