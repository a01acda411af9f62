"""Transfers that are killed, at either end, and begun again."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from modelyard import Client, DataLossError, Progress

from tests.rpc.client.conftest import CuttingProxy, serving
from tests.rpc.client.test_transfer import MIB, read_tree

KILLED = """
import os, signal, sys, modelyard
server, method, after, *arguments = sys.argv[1:]
def stop(now):
    if now.done_bytes >= int(after):
        os.kill(os.getpid(), signal.SIGKILL)
with modelyard.Client(server, token="alpha-token", project="alpha") as client:
    getattr(client.artifacts, method)(*arguments, progress=stop)
"""
FILE_BYTES = 24 * MIB


def killed(client: Client, method: str, after: int, *arguments: str) -> None:
    command = [sys.executable, "-c", KILLED, client.settings.server, method, str(after)]
    done = subprocess.run([*command, *arguments], check=False, timeout=60)
    assert done.returncode == -9


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    data = random.Random(str(tmp_path)).randbytes(FILE_BYTES)  # noqa: S311 - bytes for a test
    (folder / "large.bin").write_bytes(data)
    for number in range(50):
        (folder / f"small-{number}").write_bytes(data[number * 1000 : number * 1000 + 900])
    return folder


def test_a_killed_pull_is_taken_up_again(client: Client, tree: Path, tmp_path: Path) -> None:
    artifact = client.artifacts.push(tree)
    killed(client, "pull", FILE_BYTES // 2, artifact.name, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    seen: list[Progress] = []
    client.artifacts.pull(artifact, tmp_path / "out", progress=seen.append)
    assert read_tree(tmp_path / "out") == read_tree(tree)
    assert seen[-1].done_bytes == artifact.size_bytes
    assert seen[-1].present_bytes >= FILE_BYTES // 3
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_a_file_damaged_meanwhile_is_mended(client: Client, tree: Path, tmp_path: Path) -> None:
    artifact = client.artifacts.push(tree)
    killed(client, "pull", FILE_BYTES // 2, artifact.name, str(tmp_path / "out"))
    (partial,) = (path for path in tmp_path.iterdir() if path.name != "in")
    with (partial / "large.bin").open("r+b") as file:
        file.write(b"damage")
    client.artifacts.pull(artifact, tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(tree)


def test_bytes_that_rotted_are_not_pulled(tree: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data") as server,
        Client(f"127.0.0.1:{server.port}", token="alpha-token", project="alpha") as client,
    ):
        artifact = client.artifacts.push(tree)
        pack = max((tmp_path / "data/packs").glob("*/*"), key=lambda path: path.stat().st_size)
        with pack.open("r+b") as file:
            file.seek(FILE_BYTES // 3)
            file.write(b"rotten")
        with pytest.raises(DataLossError) as caught:
            client.artifacts.pull(artifact, tmp_path / "out")
        assert caught.value.reason == "CORRUPT_BYTES"
        assert not (tmp_path / "out").exists()
        sent: list[Progress] = []
        assert client.artifacts.push(tree, progress=sent.append) == artifact
        assert 0 < sent[-1].done_bytes - sent[-1].present_bytes <= 2 * MIB
        assert read_tree(client.artifacts.pull(artifact, tmp_path / "out")) == read_tree(tree)


def test_a_killed_push_is_taken_up_again(client: Client, tree: Path) -> None:
    killed(client, "push", FILE_BYTES // 2, str(tree))
    artifact = client.artifacts.push(tree)
    assert artifact.size_bytes == sum(path.stat().st_size for path in tree.iterdir())
    assert client.artifacts.read(artifact, "large.bin") == (tree / "large.bin").read_bytes()


def test_a_server_may_be_killed_meanwhile(tree: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as first, serving(data, start=False) as second:
        proxy = CuttingProxy(first.port, [])
        address = f"127.0.0.1:{proxy.port}"
        struck = threading.Event()

        def strike(now: Progress) -> None:
            if now.done_bytes > FILE_BYTES // 2 and not struck.is_set():
                struck.set()
                first.kill()
                proxy.target = second.start()

        with Client(address, token="alpha-token", project="alpha") as client:
            artifact = client.artifacts.push(tree, progress=strike)
            assert struck.is_set()
            pulled = client.artifacts.pull(artifact, tmp_path / "out")
        proxy.close()
        assert read_tree(pulled) == read_tree(tree)
