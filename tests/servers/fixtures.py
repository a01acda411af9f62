"""The servers as pytest fixtures: one PostgreSQL and one S3 server per test process.

They start when the first test asks for them. Every test gets a database, a bucket,
a Valkey of its own, so tests may run in any order and side by side.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The servers' clients take a second to import: only tests that use them should pay.
if TYPE_CHECKING:
    from tests.servers.otlp import OtlpSink
    from tests.servers.postgres import PostgresServer
    from tests.servers.seaweedfs import S3Bucket, S3Server
    from tests.servers.valkey import ValkeyServer


def _folder(stack: ExitStack) -> Path:
    """Make a folder with a path short enough for a socket's address."""
    folder = tempfile.mkdtemp(prefix="modelyard-test-")
    stack.callback(shutil.rmtree, folder)
    return Path(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    from tests.servers import postgres

    with ExitStack() as stack:
        yield stack.enter_context(postgres.running(_folder(stack)))


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database, dropped after the test."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """A fresh Valkey; the test may `stop`, `start` and `flush` it."""
    from tests.servers.valkey import ValkeyServer

    with ExitStack() as stack:
        server = ValkeyServer(_folder(stack))
        stack.callback(server.stop)
        server.start()
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server."""
    from tests.servers import seaweedfs

    with ExitStack() as stack:
        yield stack.enter_context(seaweedfs.running(_folder(stack)))


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """A fresh S3 bucket."""
    return s3_server.fresh_bucket()


@pytest.fixture
def otlp_sink() -> Iterator[OtlpSink]:
    """A collector of OpenTelemetry spans."""
    from tests.servers import otlp

    with otlp.running() as sink:
        yield sink
