"""A bundle on disk is used again only as long as each of its files is what was registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from modelyard.digests import folder_digest

from services.deployer.agent.preparing import is_whole


def change(folder: Path) -> None:
    (folder / "code" / "model.py").write_text("x = 2\n")


def add(folder: Path) -> None:
    (folder / "code" / "model.pyc").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "code" / "model.py").unlink()


def link(folder: Path) -> None:
    (folder / "code" / "other.py").symlink_to("model.py")


@pytest.mark.parametrize("harm", [change, add, remove, link])
def test_a_bundle_that_changed_is_not_whole(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    made = tmp_path / "made"
    (made / "code").mkdir(parents=True)
    (made / "code" / "model.py").write_text("x = 1\n")
    (made / "modelyard.json").write_text("{}\n")
    bundle = made.rename(tmp_path / folder_digest(made))
    assert is_whole(bundle)
    harm(bundle)
    assert not is_whole(bundle)
    assert bundle.exists()  # a model server may run from it
