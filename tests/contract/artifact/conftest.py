"""The artifact service on each pair of database and blob store it supports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.artifact.settings import ArtifactSettings
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import Yard


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a service under test keeps its bytes, and how to damage them from outside."""

    settings: ArtifactSettings
    damage: Callable[[Callable[[bytes], bytes]], None]
    """Replace the content of every pack by a function of it."""


@pytest.fixture(params=["sqlite-disk"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    data = tmp_path / "artifact"

    def damage(change: Callable[[bytes], bytes]) -> None:
        for path in (data / "packs").glob("*/*"):
            path.write_bytes(change(path.read_bytes()))

    return Backend(ArtifactSettings(data=str(data)), damage)


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
