"""The metadata service on each database it supports."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from services.common.sql.engines import create_engine, migrate
from services.metadata.settings import MetadataSettings
from services.metadata.wiring import MIGRATIONS
from tests.contract.metadata.desk import Desk, House, artifacts_running, metadata_running


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> MetadataSettings:
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        engine = create_engine(url)
        migrate(engine, MIGRATIONS)
        engine.dispose()
    return MetadataSettings(
        database_url=url,
        tokens_dir=str(tmp_path / "tokens"),
        sweep_seconds=0.1,
        pending_seconds=0.3,
        heartbeat_seconds=300,
        use_seconds=0.2,
    )


@pytest.fixture
def artifact_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
async def house(settings: MetadataSettings, artifact_port: int) -> AsyncIterator[House]:
    async with metadata_running(settings, artifact_port) as house:
        yield house


@pytest.fixture
async def admin(house: House) -> AsyncIterator[Desk]:
    """The administrator's desk."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.port}") as channel:
        yield Desk(channel, house, house.secret("admin"))


@pytest.fixture
async def artifact(admin: Desk, tmp_path: Path) -> AsyncIterator[str]:
    """An artifact that is stored, in an artifact service that runs."""
    async with artifacts_running(admin.house, tmp_path / "artifact"):
        yield await admin.push()
