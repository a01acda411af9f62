"""A cache shared by processes: fetched once, linked, never trusted once written to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from modelyard import Cache, Client, Progress
from modelyard.artifact.v1 import artifact_pb2

from tests.rpc.client.test_transfer import MIB, make_tree, read_tree

PULL = """
import sys, modelyard
server, artifact, target, cache = sys.argv[1:]
seen = [0]
client = modelyard.Client(server, token="alpha-token", project="alpha")
note = lambda now: seen.append(now.done_bytes - now.present_bytes)
client.artifacts.pull(artifact, target, cache=cache, progress=note)
print(seen[-1])
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("tree")
    return root, make_tree(root, seed=41)


@pytest.fixture
def artifact(client: Client, tree: tuple[Path, dict[str, bytes]]) -> artifact_pb2.Artifact:
    return client.artifacts.push(tree[0])


def test_what_is_in_the_cache_is_linked(
    client: Client,
    artifact: artifact_pb2.Artifact,
    tree: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    first = client.artifacts.pull(artifact, tmp_path / "one", cache=cache)
    seen: list[Progress] = []
    second = client.artifacts.pull(artifact, tmp_path / "two", cache=cache, progress=seen.append)
    assert read_tree(first) == read_tree(second) == tree[1]
    assert seen[-1].present_share == 1
    assert (first / "exact.bin").samefile(second / "exact.bin")
    assert os.access(second / "empty", os.X_OK)
    assert not (second / "exact.bin").stat().st_mode & 0o222
    assert not list((cache / "partial").iterdir())


def test_what_was_written_to_is_not_used_again(
    client: Client,
    artifact: artifact_pb2.Artifact,
    tree: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    first = client.artifacts.pull(artifact, tmp_path / "one", cache=cache)
    victim = first / "exact.bin"
    victim.chmod(0o644)
    victim.write_bytes(b"y" * MIB)
    second = client.artifacts.pull(artifact, tmp_path / "two", cache=cache)
    assert read_tree(second) == tree[1]
    assert victim.read_bytes() == b"y" * MIB


def test_many_processes_fetch_once(
    client: Client,
    artifact: artifact_pb2.Artifact,
    tree: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", PULL, client.settings.server, artifact.name),
                *(str(tmp_path / f"out-{number}"), str(tmp_path / "cache")),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    fetched = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    # Equal bytes under two names may come twice: they are asked for in one call.
    assert sum(fetched) <= sum(map(len, tree[1].values()))
    assert all(read_tree(tmp_path / f"out-{number}") == tree[1] for number in range(4))


def test_the_cache_keeps_to_its_bound(
    client: Client, artifact: artifact_pb2.Artifact, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=2 * MIB)
    client.artifacts.pull(artifact, tmp_path / "one", cache=cache)
    kept = sum(path.stat().st_size for path in (cache.folder / "files").glob("*/*"))
    assert kept <= cache.max_bytes


def test_threads_share_it_too(
    client: Client,
    artifact: artifact_pb2.Artifact,
    tree: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    threads = [
        threading.Thread(target=client.artifacts.pull, args=(artifact, tmp_path / f"out-{number}"))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(read_tree(tmp_path / f"out-{number}") == tree[1] for number in range(3))
