from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from modelyard import AsyncClient, Client, DataLossError, ResourceExhaustedError
from modelyard._names import id_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def artifact_port(data: Path) -> Iterator[int]:
    """Run a service whose folder the tests may damage."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.artifact.serving"],
        env={**os.environ, "MODELYARD_ARTIFACT_DATA": str(data)},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    with server.stdout:
        yield int(server.stdout.readline())
        server.kill()
        server.wait()


@pytest.fixture
def run(artifact_port: int) -> Run:
    """Run the command line against the service."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("modelyard")), *arguments],
            env={
                "MODELYARD_SERVER": f"127.0.0.1:{artifact_port}",
                "MODELYARD_TOKEN": "alpha-token",
                "MODELYARD_PROJECT": "alpha",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_usage_and_quota(client: Client, tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").write_bytes(b"usage" * 1000)
    artifact = client.artifacts.push(tmp_path / "a")
    usage = client.storage.usage()
    assert usage.artifact_count >= 1
    assert usage.stored_bytes >= usage.needed_bytes >= 5000
    assert usage.quota_bytes == 0

    shown = run("artifacts", "quota", f"{usage.stored_bytes // 1024}K")
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "b").write_bytes(b"more" * 1000)
    with pytest.raises(ResourceExhaustedError, match="quota"):
        client.artifacts.push(tmp_path / "b")
    assert client.artifacts.read(artifact.name, "a") == b"usage" * 1000
    assert client.storage.set_quota(None).quota_bytes == 0
    client.artifacts.push(tmp_path / "b")

    lines = run("artifacts", "usage").stdout.splitlines()
    assert lines[0].split() == ["project", "projects/alpha"]
    assert ["quota", "none"] in [line.split() for line in lines]
    wrong = run("artifacts", "quota", "much")
    assert wrong.returncode == 2
    absent = run("push", "absent")
    assert (absent.returncode, absent.stderr) == (
        1,
        "modelyard: absent: No such file or directory\n",
    )


def test_sweep_and_holds(client: Client, tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").write_bytes(b"held")
    artifact = client.artifacts.push(tmp_path / "a")
    client.artifacts.hold(artifact.name, holder="projects/alpha/runs/1")
    assert not client.storage.sweep(dry_run=True).items
    assert json.loads(run("artifacts", "sweep", "--dry-run", "-o", "json").stdout) == []
    assert run("artifacts", "sweep").stdout.splitlines()[-1] == "0 bytes freed"
    held = run("artifacts", "holds", id_of(artifact.name)).stdout.splitlines()
    assert held[1].split()[0] == "projects/alpha/runs/1"


def test_verify(client: Client, artifact_port: int, data: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/sound").write_bytes(b"sound")
    artifact = client.artifacts.push(tmp_path / "tree")
    (tmp_path / "tree/rotten").write_bytes(bytes(range(256)) * 100)
    tree = client.artifacts.push(tmp_path / "tree")
    seen: list[tuple[int, int]] = []
    assert client.storage.verify(tree.name, progress=lambda *now: seen.append(now)) == []
    assert seen[-1] == (tree.size_bytes, tree.size_bytes)
    sound = run("artifacts", "verify", id_of(tree.name))
    assert (sound.returncode, sound.stdout) == (0, "no damage found\n")

    async def verify_awaited() -> int:
        address = f"127.0.0.1:{artifact_port}"
        async with AsyncClient(address, token="alpha-token", project="alpha") as one:
            return len(await one.storage.verify(artifact.name))

    assert asyncio.run(verify_awaited()) == 0

    for pack in (data / "packs").glob("*/*"):
        if b"\xfe\xff\x00\x01" in pack.read_bytes():
            pack.write_bytes(pack.read_bytes().replace(b"\xfe\xff\x00\x01", b"\xfe\xff\x00\x02"))
    with pytest.raises(DataLossError, match="damaged"):
        client.artifacts.pull(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [file.path for file in client.storage.verify(tree.name)] == ["rotten"]
    damaged = run("artifacts", "verify", id_of(tree.name))
    assert damaged.returncode == 1
    assert damaged.stdout.splitlines()[1].split()[0] == "rotten"
    assert client.artifacts.push(tmp_path / "tree") == tree
    assert run("artifacts", "verify", id_of(tree.name)).returncode == 0
