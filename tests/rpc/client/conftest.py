"""A real artifact service in a process of its own, and a proxy that breaks connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from modelyard import Client

from services.artifact.settings import PREFIX


class CuttingProxy:
    """Passes a TCP connection on until so many bytes went through it, then breaks it.

    Each entry of `budgets` is one connection's; what comes after them lives.
    """

    def __init__(self, port: int, budgets: list[int]) -> None:
        self.cuts = 0
        self.passed = 0
        """Bytes that went through, in both directions."""
        self.target = port
        self._budgets = budgets
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def break_all(self, budgets: list[int]) -> None:
        """Break what is connected, and the next connections after so many bytes."""
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._budgets = budgets

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except ConnectionRefusedError:
                    near.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += near, far
                budget = [self._budgets.pop(0) if self._budgets else 2**62]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(*pair, budget), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, budget: list[int]) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and budget[0] > 0:
                budget[0] -= len(data)
                with self._lock:
                    self.passed += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:  # once for both directions
            self.cuts += budget[0] <= 0
            budget[0] = 2**62


class ArtifactServer:
    """An artifact service in a process of its own; `start` and `kill` may be repeated."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.port = 0
        self.pid = 0
        self._settings = {"DATA": str(data), **settings}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> int:
        """Start it and return its port."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.artifact.serving"],
            env=os.environ | {PREFIX + name: value for name, value in self._settings.items()},
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port, self.pid = int(self._process.stdout.readline()), self._process.pid
        return self.port

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@contextlib.contextmanager
def serving(data: Path, *, start: bool = True, **settings: str) -> Iterator[ArtifactServer]:
    server = ArtifactServer(data, **settings)
    try:
        if start:
            server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def artifact_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArtifactServer]:
    with serving(tmp_path_factory.mktemp("artifact")) as server:
        yield server


@pytest.fixture(scope="module")
def artifact_port(artifact_server: ArtifactServer) -> int:
    return artifact_server.port


@pytest.fixture
def client(artifact_port: int) -> Iterator[Client]:
    with Client(f"127.0.0.1:{artifact_port}", token="alpha-token", project="alpha") as client:
        yield client


Cut = Callable[[list[int]], tuple[Client, CuttingProxy]]


@pytest.fixture
def cut(artifact_port: int) -> Iterator[Cut]:
    """Connect through a proxy that breaks connections after so many bytes each."""
    with contextlib.ExitStack() as stack:

        def connect(budgets: list[int]) -> tuple[Client, CuttingProxy]:
            proxy = CuttingProxy(artifact_port, budgets)
            stack.callback(proxy.close)
            client = Client(f"127.0.0.1:{proxy.port}", token="alpha-token", project="alpha")
            stack.callback(client.close)
            return client, proxy

        yield connect
