"""What the suites that kill at chosen moments share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.installation import OnDisk


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    """Installations on SQLite and a folder."""
    return OnDisk(tmp_path_factory.mktemp("disk"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files to push."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "model.py").write_text("pass\n")
    (folder / "weights.bin").write_bytes(os.urandom(300_000))
    return folder
