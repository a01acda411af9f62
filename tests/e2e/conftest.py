"""The suite in both settings, started once for all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.production import ProductionSuite
from tests.e2e.suite import EmbeddedSuite, Suite


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSuite]:
    """What `modelyard up` runs."""
    suite = EmbeddedSuite(tmp_path_factory.mktemp("embedded"))
    suite.start()
    yield suite
    suite.stop()


@pytest.fixture(scope="session", params=["embedded", "production"])
def suite(request: pytest.FixtureRequest) -> Suite:
    """A suite in either setting."""
    found: Suite = request.getfixturevalue(request.param)
    return found
