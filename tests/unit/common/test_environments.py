"""Environments: exact locks, made once, never half, with the installer's variables only."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from services.common.environments.installer import installer_variables
from services.common.environments.lock import EnvironmentFailedError, check_lock
from services.common.environments.making import MARKER, Environments
from services.common.environments.removal import remove_old


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
    lines: list[str] = []
    lock = await first.resolve(["iniconfig"], on_line=lines.append)
    assert "iniconfig==" in lock
    assert lock == await second.resolve(["iniconfig"], on_line=lines.append)
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
    first.close()
    second.close()
    (extra / MARKER).unlink()
    shutil.rmtree(extra / "pluggy")
    await second.extend(made[0], lock, "pluggy", on_line=lines.append)
    assert (extra / "pluggy").is_dir()


async def test_what_cannot_be_resolved_says_why(folder: Path, wheel: str) -> None:
    with pytest.raises(EnvironmentFailedError, match="iniconfig"):
        await Environments(folder, wheel=wheel).resolve(["iniconfig==0.0.0.0.1"], on_line=print)


async def test_a_project_has_its_own_and_old_ones_go_unless_they_are_in_use(
    folder: Path, wheel: str, tmp_path: Path
) -> None:
    everything = Environments(tmp_path, wheel=wheel)
    one, other = everything.within("one"), everything.within("other")
    places = []
    (tmp_path / "template").mkdir()
    (tmp_path / "template" / "file").write_bytes(b"x" * 600)
    for environments, name in ((one, "old"), (one, "new"), (other, "new")):
        place = environments.folder / name

        async def make(place: Path) -> None:
            await asyncio.to_thread(shutil.copytree, tmp_path / "template", place)

        await environments._have(place, make)
        places.append(place)
    old, new, _ = places
    os.utime(old / MARKER, (1, 1))
    os.utime(new / MARKER, (10**9, 10**9))
    remove_old(tmp_path, max_bytes=0, max_age=0)
    assert all(place.exists() for place in places), "all are in use"

    one.close()
    other.close()
    remove_old(tmp_path, max_bytes=10**9, max_age=10**10)
    assert all(place.exists() for place in places)
    remove_old(tmp_path, max_bytes=1_300, max_age=10**10)
    assert [place.exists() for place in places] == [False, True, True]
    remove_old(tmp_path, max_bytes=10**9, max_age=3_600)
    assert [place.exists() for place in places] == [False, False, True]


async def test_nothing_of_a_package_runs_while_it_is_installed(
    folder: Path, wheel: str, tmp_path: Path
) -> None:
    package = tmp_path / "evil-1"
    package.mkdir()
    (package / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    archive = tmp_path / "evil-1.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, package.name)
    requirements = [f"evil @ {archive.as_uri()}"]
    with pytest.raises(EnvironmentFailedError, match=r"(?i)build"):
        await Environments(folder, wheel=wheel).resolve(requirements, on_line=print)
    assert not (tmp_path / "ran").exists()


def compilers(folder: Path) -> list[psutil.Process]:
    """Return the processes that compile what lies in a folder."""
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if {"compileall", str(folder.parent)} <= set(p.info["cmdline"] or ())]


def test_nobody_goes_on_to_compile_for_one_who_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    folder.mkdir()
    for number in range(20):
        (folder / f"long{number}.py").write_text("a = [1, 2, 3]\n" * 50_000)
    script = f"""
import asyncio, pathlib
from services.common.environments.making import _compile_bytecode
asyncio.run(_compile_bytecode(pathlib.Path({sys.executable!r}), pathlib.Path({str(folder)!r})))
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while len(compilers(folder)) < min(2, os.cpu_count() or 1):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    end = time.monotonic() + 5
    while compilers(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not compilers(folder)
