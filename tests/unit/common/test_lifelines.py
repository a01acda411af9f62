"""Children that die with whoever started them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from services.common.processes import lifelines


@pytest.fixture(params=["setpriv", "python"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(shutil, "which", lambda _: None)


def test_a_command_runs_while_its_parent_lives() -> None:
    done = subprocess.run(
        [*lifelines.dies_with_us(), "echo", "it's", "here"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "it's here\n"


def test_a_child_whose_parent_died_before_it_was_tied_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**22)  # as if another had started it
    command = lifelines.dies_with_us()
    assert subprocess.run([*command, sys.executable, "-c", "pass"], check=False).returncode != 0
