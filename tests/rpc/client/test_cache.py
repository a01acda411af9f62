"""A cache shared by processes: fetched once, linked, never trusted once written to."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
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


def test_another_tree_with_the_same_files_is_pulled_meanwhile(
    client: Client, tmp_path: Path
) -> None:
    artifacts = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "shared").write_bytes(b"s" * 1000)
        (folder / "own").write_text(name)
        artifacts.append(client.artifacts.push(folder))
    cache, pulled = tmp_path / "cache", tmp_path / "pulled"

    def meanwhile(now: Progress) -> None:
        if now.done_bytes == now.total_bytes:
            client.artifacts.pull(artifacts[1], pulled / "other", cache=cache)

    client.artifacts.pull(artifacts[0], pulled / "one", cache=cache, progress=meanwhile)
    assert all(read_tree(pulled / name) == read_tree(tmp_path / name) for name in ("one", "other"))


def test_what_is_evicted_meanwhile_is_delivered(
    client: Client,
    artifact: artifact_pb2.Artifact,
    tree: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    cache = Cache(tmp_path / "cache", max_bytes=0)
    client.artifacts.pull(artifact, tmp_path / "one", cache=tmp_path / "cache")
    some = max((cache.folder / "files").glob("*/*"), key=lambda path: path.stat().st_size)
    some.unlink()
    pulled = client.artifacts.pull(
        artifact, tmp_path / "two", cache=tmp_path / "cache", progress=lambda _: cache.evict()
    )
    assert read_tree(pulled) == tree[1]


def test_equal_bytes_may_be_a_program_and_not(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("file", "program"):
        (folder / name).write_bytes(b"the same")
        (folder / name).chmod(0o755 if name == "program" else 0o644)
        artifact = client.artifacts.push(folder)
        pulled = client.artifacts.pull(artifact, tmp_path / name, cache=tmp_path / "cache")
    assert [os.access(pulled / name, os.X_OK) for name in ("file", "program")] == [False, True]


def test_what_a_killed_process_left_goes_in_time(
    client: Client, artifact: artifact_pb2.Artifact, tmp_path: Path
) -> None:
    partial = tmp_path / "cache" / "partial"
    for key, age in (("a" * 64, 2 * 24 * 3600), ("b" * 64, 0)):
        (partial / key).mkdir(parents=True)
        (partial / key / "half").write_bytes(b"x")
        then = time.time() - age
        os.utime(partial / key / "half", (then, then))
    client.artifacts.pull(artifact, tmp_path / "one", cache=tmp_path / "cache")
    assert [path.name for path in partial.iterdir()] == ["b" * 64]


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
