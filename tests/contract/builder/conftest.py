"""The builder on each database it supports: SQLite alone, and PostgreSQL with a bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from services.builder.settings import BuilderSettings
from services.builder.wiring import MIGRATIONS
from services.common.environments.making import Environments
from services.common.sql.engines import create_engine, migrate
from tests.contract.builder.production import Production
from tests.contract.builder.stack import Stack, running
from tests.contract.builder.yard import Yard
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Bucket
from tests.servers.valkey import ValkeyServer

LEASE_SECONDS = 1.2


@pytest.fixture(params=["sqlite", "postgres-valkey"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A database's URL and a bus's, empty for none."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'builder.db'}", ""
    url = request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    migrate(engine, MIGRATIONS)
    engine.dispose()
    return url, request.getfixturevalue("valkey").url


Start = Callable[[], AbstractAsyncContextManager[Yard]]


@pytest.fixture
def lease_seconds() -> float:
    """How long leases last; as short as tests that wait for their end can bear."""
    return LEASE_SECONDS


@pytest.fixture
def start(backend: tuple[str, str], tmp_path: Path, lease_seconds: float) -> Start:
    """Start the services anew on the same data."""

    @asynccontextmanager
    async def begin() -> AsyncIterator[Yard]:
        url, redis_url = backend
        settings = BuilderSettings(
            database_url=url, lease_seconds=lease_seconds, tick_seconds=0.1, retry_seconds=0.2
        )
        async with (
            running(tmp_path, builder=settings, redis_url=redis_url) as stack,
            Yard.open(stack) as yard,
        ):
            yield yard

    return begin


@pytest.fixture
async def yard(start: Start) -> AsyncIterator[Yard]:
    async with start() as yard:
        yield yard


@pytest.fixture
def production(
    postgres_server: PostgresServer, s3_bucket: S3Bucket, valkey: ValkeyServer
) -> Iterator[Production]:
    """A database for each service, a bucket, a bus."""
    with Production.opened(postgres_server, s3_bucket, valkey.url) as production:
        yield production


@pytest.fixture(
    params=["sqlite-disk", pytest.param("postgres-s3-valkey", marks=pytest.mark.slow)],
)
def backing(request: pytest.FixtureRequest) -> Production | None:
    """Each of what the services keep their data in; None for SQLite and the disk."""
    if request.param == "sqlite-disk":
        return None
    found: Production = request.getfixturevalue("production")
    return found


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """The services for a real worker, with leases as short as its start allows."""
    async with _for_workers(tmp_path, None) as stack:
        yield stack


@pytest.fixture
async def any_stack(tmp_path: Path, backing: Production | None) -> AsyncIterator[Stack]:
    """The same on each backing."""
    async with _for_workers(tmp_path, backing) as stack:
        yield stack


def _for_workers(folder: Path, production: Production | None) -> AbstractAsyncContextManager[Stack]:
    url, elsewhere = f"sqlite:///{folder / 'builder.db'}", {}
    if production is not None:
        url, elsewhere = production.databases["builder"], production.services(folder)
    settings = BuilderSettings(
        database_url=url, lease_seconds=2.0, tick_seconds=0.2, retry_seconds=0.2
    )
    return running(folder, builder=settings, **elsewhere)


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of environments for all workers of the session, its wheel built beforehand."""
    folder = tmp_path_factory.mktemp("environments")
    wheel = asyncio.run(Environments(folder).client_wheel(print))
    return wheel.rename(folder / wheel.name).parent
