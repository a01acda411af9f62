"""Environments: exact locks, made once, never half, with the installer's variables only."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from services.common.environments import (
    MARKER,
    EnvironmentFailedError,
    Environments,
    check_lock,
    installer_variables,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="module")
def wheel(folder: Path) -> str:
    return str(asyncio.run(Environments(folder).client_wheel(print)))


@pytest.mark.parametrize(
    "lock",
    [
        "numpy>=1\n",
        "numpy @ https://example.com/numpy.whl\n",
        "--index-url https://example.com\n",
        "modelyard==1.0\n",
        "../numpy\n",
        "numpy==1 ; os_name == 'nt'\n",
    ],
)
def test_a_lock_is_exact_versions_only(lock: str) -> None:
    with pytest.raises(EnvironmentFailedError):
        check_lock(lock)


def test_only_the_installers_own_variables_are_passed() -> None:
    environ = {
        "UV_INDEX_URL": "a",
        "PIP_CERT": "b",
        "https_proxy": "c",
        "SSL_CERT_FILE": "d",
        "HOME": "e",
        "MODELYARD_WORKER_TOKEN_FILE": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    passed = installer_variables(environ)
    assert set(passed) == {"UV_INDEX_URL", "PIP_CERT", "https_proxy", "SSL_CERT_FILE", "HOME"}


async def test_an_environment_is_made_once_and_whole(folder: Path, wheel: str) -> None:
    first, second = Environments(folder, wheel=wheel), Environments(folder, wheel=wheel)
    requirements = folder / "requirements.txt"
    requirements.write_text("iniconfig\n")
    lines: list[str] = []
    lock = await first.resolve(requirements, on_line=lines.append)
    assert "iniconfig==" in lock
    assert lock == await second.resolve(requirements, on_line=lines.append)
    assert lock.splitlines() == sorted(lock.splitlines())

    made = await asyncio.gather(
        first.ensure(lock, on_line=lines.append), second.ensure(lock, on_line=lines.append)
    )
    assert made[0] == made[1]
    assert sum("Creating virtual environment" in line for line in lines) == 1
    command = [str(made[0].python), "-c", "import iniconfig, modelyard.serving, numpy"]
    found = await asyncio.to_thread(subprocess.run, command, env={"PATH": os.defpath})
    assert found.returncode == 0

    extra = await first.extend(made[0], lock, "pluggy", on_line=lines.append)
    assert (extra / "pluggy").is_dir()
    assert not (extra / "numpy").exists()

    # What was cut off half-way does not count, and is made anew.
    (extra / MARKER).unlink()
    shutil.rmtree(extra / "pluggy")
    await second.extend(made[0], lock, "pluggy", on_line=lines.append)
    assert (extra / "pluggy").is_dir()


async def test_what_cannot_be_resolved_says_why(folder: Path, wheel: str) -> None:
    requirements = folder / "impossible.txt"
    requirements.write_text("iniconfig==0.0.0.0.1\n")
    with pytest.raises(EnvironmentFailedError, match="iniconfig"):
        await Environments(folder, wheel=wheel).resolve(requirements, on_line=print)
