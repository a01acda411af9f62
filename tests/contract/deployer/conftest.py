"""The deployer on each database it supports, beside a small metadata service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from services.common.sql.engines import create_engine, migrate
from services.deployer.settings import DeployerSettings
from services.deployer.wiring import MIGRATIONS
from tests.contract.deployer import registry as registries
from tests.contract.deployer.registry import Registry
from tests.contract.deployer.yard import Person, ScriptedController, serving


@dataclass
class Yard:
    """A running deployer, a person and a controller that talk to it."""

    ada: Person
    bob: Person
    dora: Person
    """May deploy, and not write."""
    reader: Person
    controller: ScriptedController


Start = Callable[..., AbstractAsyncContextManager[Yard]]


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deployer.db"
    url: str = request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    migrate(engine, MIGRATIONS)
    engine.dispose()
    return url


@pytest.fixture
async def registry() -> Registry:
    return Registry(metrics={number: {"accuracy": 0.9 + number / 100} for number in range(1, 6)})


@pytest.fixture
async def metadata_port(registry: Registry) -> AsyncIterator[int]:
    async with registries.serving(registry) as port:
        yield port


@pytest.fixture
def start(database_url: str, metadata_port: int, tmp_path: Path) -> Start:
    """Start a replica on the test's database."""
    token_file = tmp_path / "deployer.token"
    token_file.touch(mode=0o600)
    token_file.write_text("deployer\n")

    @asynccontextmanager
    async def begin(*, progress_seconds: float = 60.0, redis_url: str = "") -> AsyncIterator[Yard]:
        settings = DeployerSettings(
            database_url=database_url,
            token_file=str(token_file),
            lease_seconds=0.5,
            tick_seconds=0.1,
            progress_seconds=progress_seconds,
        )
        async with (
            serving(settings, metadata_port=metadata_port, redis_url=redis_url) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield Yard(
                Person(channel, "ada"),
                Person(channel, "bob"),
                Person(channel, "dora"),
                Person(channel, "reader"),
                ScriptedController(channel, "agent"),
            )

    return begin


@pytest.fixture
async def yard(start: Start) -> AsyncIterator[Yard]:
    async with start() as yard:
        await yard.ada.create_environment()
        yield yard
