"""Environments of dependency groups too heavy to be everyone's, made when a test needs one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[1]


def provide(group: str) -> Path:
    """Make the environment of a dependency group, unless it is there; return its folder."""
    folder = ROOT / ".venv" / group
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = "\n".join(groups[group])
    stamp = folder / "made-from"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{group}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return folder
        subprocess.run(
            [find_uv_bin(), "sync", "--quiet", "--only-group", group, "--project", str(ROOT)],
            check=True,
            env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)},
        )
        stamp.write_text(wanted)
    return folder


def packages(group: str) -> Path:
    """Return the folder of a group's packages, for `sys.path`."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return provide(group) / "lib" / version / "site-packages"
