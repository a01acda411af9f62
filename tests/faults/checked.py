"""What is looked for after every kill, before anything is started again."""

from __future__ import annotations

from pathlib import Path

from services.suite.check_state import check_state, in_folder


def assert_sound(data: Path) -> None:
    """Assert that a suite's folder holds nothing that must never be."""
    assert list(check_state(in_folder(data))) == []
