"""The README's commands, each as it stands there, in their order, on an empty suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.suite import EmbeddedSuite

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 400
"""A first build downloads its packages."""
WITHOUT_END = {
    "modelyard demo": "",  # `.ci/run` does it, in a clone of its own
    "modelyard up": "",  # the suite that is here already
    "modelyard watch": "",
    "modelyard deployments watch": "--once",
}
"""What is left out, and what is told to end by itself."""
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> Iterator[str]:
    """Read the README's blocks of shell commands, one a line."""
    for block in _BLOCK.findall((ROOT / "README.md").read_text()):
        for line in block.replace("\\\n", "").splitlines():
            command = line.replace("uv run modelyard", "modelyard").partition("  #")[0].strip()
            ends = [more for start, more in WITHOUT_END.items() if start in command]
            if not ends:
                yield command
            elif ends[0]:
                yield f"{command} {ends[0]}"


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[EmbeddedSuite]:
    suite = EmbeddedSuite(tmp_path / "suite")
    suite.start()
    yield suite
    suite.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_command_works_as_it_stands(suite: EmbeddedSuite, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "UV_NO_SYNC": "1",
        "MODELYARD_SERVER": suite.address,
        "MODELYARD_TOKEN": suite.token,
        "MODELYARD_SPOOL_DIR": str(tmp_path / "spool"),
    }
    told = {}
    for command in commands():
        done = subprocess.run(
            ["/bin/sh", "-c", command.replace("page.html", str(tmp_path / "page.html"))],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        told[" ".join(command.split()[1:3])] = done.stdout
    assert "breast-cancer/" in told["runs list"]
    assert told["datasets compare"].splitlines()[-1] == "0 of 31 columns drifted"
    assert "beats the forest" in told["aliases history"]
    assert (tmp_path / "page.html").stat().st_size > 10_000
