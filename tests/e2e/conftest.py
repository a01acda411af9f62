"""The suite in both settings, started once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.production import ProductionSuite
from tests.e2e.suite import EmbeddedSuite, Suite
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server
from tests.servers.valkey import running as valkey_running


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSuite]:
    """What `modelyard up` runs."""
    suite = EmbeddedSuite(tmp_path_factory.mktemp("embedded"))
    suite.start()
    yield suite
    suite.stop()


@pytest.fixture(scope="session")
def production(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    s3_server: S3Server,
) -> Iterator[ProductionSuite]:
    """A process a service on PostgreSQL, S3 and Redis, behind the shipped proxy."""
    with valkey_running() as valkey:
        folder = tmp_path_factory.mktemp("production")
        suite = ProductionSuite(folder, postgres_server, s3_server.fresh_bucket(), valkey.url)
        suite.start()
        yield suite
        suite.stop()


@pytest.fixture(scope="session", params=["embedded", "production"])
def suite(request: pytest.FixtureRequest) -> Suite:
    """A suite in either setting."""
    found: Suite = request.getfixturevalue(request.param)
    return found
