"""The artifact service on each pair of database and blob store it supports."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.artifact.settings import ArtifactSettings
from services.artifact.wiring import MIGRATIONS
from services.common.sql.engines import create_engine, migrate
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import Yard
from tests.servers.seaweedfs import S3Bucket

PACK_BYTES = 4 * 1024 * 1024
"""Small packs, so that small uploads fill several."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a service under test keeps its bytes, and how to damage them from outside."""

    settings: ArtifactSettings
    damage: Callable[[Callable[[bytes], bytes]], None]
    """Replace the content of every pack by a function of it."""
    sizes: Callable[[], list[int]]
    """List the sizes of the packs in the storage."""


@pytest.fixture(params=["sqlite_disk", "postgresql_s3"])
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def sqlite_disk(tmp_path: Path) -> Backend:
    data = tmp_path / "artifact"

    def damage(change: Callable[[bytes], bytes]) -> None:
        for path in (data / "packs").glob("*/*"):
            path.write_bytes(change(path.read_bytes()))

    def sizes() -> list[int]:
        return [path.stat().st_size for path in (data / "packs").glob("*/*")]

    return Backend(ArtifactSettings(data=str(data), pack_bytes=PACK_BYTES), damage, sizes)


@pytest.fixture
def postgresql_s3(tmp_path: Path, postgres_url: str, s3_bucket: S3Bucket) -> Backend:
    engine = create_engine(postgres_url)
    migrate(engine, MIGRATIONS)
    engine.dispose()
    settings = ArtifactSettings(
        data=str(tmp_path / "artifact"),
        pack_bytes=PACK_BYTES,
        database_url=postgres_url,
        s3_endpoint=f"http://{s3_bucket.endpoint}",
        s3_bucket=s3_bucket.bucket,
        s3_access_key=s3_bucket.access_key,
        s3_secret_key=s3_bucket.secret_key,
    )

    def damage(change: Callable[[bytes], bytes]) -> None:
        client = s3_bucket.client()
        for found in client.list_objects(s3_bucket.bucket, recursive=True):
            key = str(found.object_name)
            with client.get_object(s3_bucket.bucket, key) as response:
                data = change(response.read())
            client.put_object(s3_bucket.bucket, key, io.BytesIO(data), len(data))

    def sizes() -> list[int]:
        found = s3_bucket.client().list_objects(s3_bucket.bucket, recursive=True)
        return [one.size or 0 for one in found]

    return Backend(settings, damage, sizes)


Start = Callable[[], AbstractAsyncContextManager[Yard]]


@pytest.fixture
def start(backend: Backend) -> Start:
    """Start the service anew on the same data; give its client for project `alpha`."""

    @asynccontextmanager
    async def begin() -> AsyncIterator[Yard]:
        async with serving(backend.settings) as port, connected(port) as stub:
            yield Yard(stub)

    return begin


@pytest.fixture
async def yard(start: Start) -> AsyncIterator[Yard]:
    async with start() as client:
        yield client
