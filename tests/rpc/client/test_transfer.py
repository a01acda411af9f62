from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from modelyard import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    FailedPreconditionError,
    NotFoundError,
    Progress,
)
from modelyard._names import id_of

from tests.rpc.client.conftest import Cut

MIB = 1024 * 1024


def make_tree(root: Path, *, seed: int, size: int = 3 * MIB + 17) -> dict[str, bytes]:
    """Make a folder with what trees may hold; a seed of its own makes its bytes new."""
    source = random.Random(seed)  # noqa: S311  # bytes for a test
    big = source.randbytes(size)
    contents = {
        "weights/big.bin": big,
        "weights/copy.bin": big,
        "exact.bin": source.randbytes(MIB),
        "empty": b"",
        "weights/half.bin": big[:MIB],
        "日本/é.txt": str(seed).encode(),
        **{f"small/{number:03}": source.randbytes(100) for number in range(100)},
    }
    for path, data in contents.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (root / "empty").chmod(0o755)
    return contents


def read_tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_tree_comes_back_as_it_was(client: Client, tmp_path: Path) -> None:
    contents = make_tree(tmp_path / "in", seed=1)
    seen: list[Progress] = []
    artifact = client.artifacts.push(tmp_path / "in", progress=seen.append)
    assert artifact.file_count == len(contents)
    assert artifact.size_bytes == sum(map(len, contents.values()))
    unique = sum({hashlib.sha256(data).digest(): len(data) for data in contents.values()}.values())
    assert seen[-1].done_bytes == seen[-1].total_bytes == artifact.size_bytes
    assert seen[-1].present_bytes >= artifact.size_bytes - unique
    assert seen == sorted(seen, key=lambda progress: progress.done_bytes)

    pulled = client.artifacts.pull(id_of(artifact.name), tmp_path / "deep/out")
    assert pulled == tmp_path / "deep/out"
    assert read_tree(pulled) == contents
    assert os.access(pulled / "empty", os.X_OK)
    assert not os.access(pulled / "exact.bin", os.X_OK)
    assert [path.name for path in pulled.parent.iterdir()] == ["out"]
    assert client.artifacts.push(pulled) == artifact


def test_what_is_there_is_not_sent_again(client: Client, cut: Cut, tmp_path: Path) -> None:
    make_tree(tmp_path / "in", seed=2)
    first = client.artifacts.push(tmp_path / "in")
    (tmp_path / "in/one-more").write_bytes(b"more")
    # A connection of 400 KiB is enough for the second time: only digests travel.
    frugal, proxy = cut([400 * 1024])
    second = frugal.artifacts.push(tmp_path / "in")
    assert proxy.cuts == 0
    assert second.name != first.name


@pytest.mark.parametrize("is_cut", [False, True])
def test_of_a_large_file_only_what_is_new_is_sent(cut: Cut, tmp_path: Path, is_cut: bool) -> None:
    data = bytearray(random.Random(40 + is_cut).randbytes(40 * MIB))  # noqa: S311
    (tmp_path / "model.bin").write_bytes(data)
    sender, proxy = cut([20 * MIB] if is_cut else [])
    seen: list[Progress] = []
    first = sender.artifacts.push(tmp_path / "model.bin", progress=seen.append)
    assert bool(proxy.cuts) is is_cut
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(data)
    assert seen == sorted(seen, key=lambda progress: progress.done_bytes)
    assert proxy.passed < 50 * MIB
    data[30 * MIB : 31 * MIB] = bytes(MIB)
    (tmp_path / "model.bin").write_bytes(data)
    second = sender.artifacts.push(tmp_path / "model.bin", progress=seen.append)
    assert seen[-1].done_bytes - seen[-1].present_bytes < 4 * MIB
    assert (
        sender.artifacts.pull(second, tmp_path / "out").joinpath("model.bin").read_bytes() == data
    )
    assert first.name != second.name


async def test_the_async_twin_transfers_the_same(client: Client, tmp_path: Path) -> None:
    contents = make_tree(tmp_path / "in", seed=3)
    server = client.settings.server
    async with AsyncClient(server, token="alpha-token", project="alpha") as twin:
        artifact = await twin.artifacts.push(tmp_path / "in")
        pulled = await twin.artifacts.pull(artifact, tmp_path / "out")
        assert await twin.artifacts.read(artifact, "exact.bin") == contents["exact.bin"]
        small = await twin.artifacts.files(artifact, prefix="small/")
    assert len(small) == 100
    assert read_tree(pulled) == contents


def test_broken_connections_cost_only_what_was_in_flight(cut: Cut, tmp_path: Path) -> None:
    contents = make_tree(tmp_path / "in", seed=4, size=12 * MIB)
    sender, proxy = cut([3 * MIB, 2 * MIB, 4 * MIB])
    artifact = sender.artifacts.push(tmp_path / "in")
    assert proxy.cuts >= 3
    receiver, proxy = cut([2 * MIB, 5 * MIB, 3 * MIB])
    assert read_tree(receiver.artifacts.pull(artifact, tmp_path / "out")) == contents
    assert proxy.cuts >= 3


def test_one_file_is_pushed_and_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"model")
    artifact = client.artifacts.push(tmp_path / "model.pkl")
    assert [file.path for file in client.artifacts.files(artifact)] == ["model.pkl"]
    assert client.artifacts.read(artifact, "model.pkl") == b"model"
    with pytest.raises(NotFoundError):
        client.artifacts.read(artifact, "other")


def test_a_folder_with_something_in_it_is_left_alone(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("a")
    artifact = client.artifacts.push(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    with pytest.raises(AlreadyExistsError):
        client.artifacts.pull(artifact, tmp_path / "full")
    assert read_tree(tmp_path / "full") == {"mine": b"mine"}
    (tmp_path / "empty").mkdir()
    client.artifacts.pull(artifact, tmp_path / "empty")
    assert read_tree(tmp_path / "empty") == {"a": b"a"}


def test_nothing_is_written_through_a_link(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("a")
    artifact = client.artifacts.push(tmp_path / "in")
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, target in (("link", outside), ("dangling", tmp_path / "absent")):
        link = tmp_path / name
        link.symlink_to(target)
        with pytest.raises(AlreadyExistsError):
            client.artifacts.pull(artifact, link)
        assert link.is_symlink()
    assert read_tree(outside) == {}
    assert not (tmp_path / "absent").exists()


def test_of_two_pulls_to_one_place_one_is_there_already(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("a")
    artifact = client.artifacts.push(tmp_path / "in")
    out = tmp_path / "to" / "out"

    def meanwhile(_: Progress) -> None:
        if not out.exists():
            client.artifacts.pull(artifact, out)

    with pytest.raises(AlreadyExistsError):
        client.artifacts.pull(artifact, out, progress=meanwhile)
    assert read_tree(tmp_path / "to") == {"out/a": b"a"}


def test_a_pull_that_was_stopped_is_taken_up_again(client: Client, tmp_path: Path) -> None:
    contents = make_tree(tmp_path / "in", seed=5)
    artifact = client.artifacts.push(tmp_path / "in")

    def stop(progress: Progress) -> None:
        if progress.done_bytes > 2 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.artifacts.pull(artifact, tmp_path / "out/tree", progress=stop)
    (partial,) = (tmp_path / "out").iterdir()
    assert partial.name.startswith(".tree.partial-")
    # What is not right, or does not belong there, does not stay.
    (partial / "intruder").symlink_to(tmp_path / "in/exact.bin")
    (partial / "small/000").unlink(missing_ok=True)
    (partial / "small/000").write_bytes(b"x" * 100)
    seen: list[Progress] = []
    client.artifacts.pull(artifact, tmp_path / "out/tree", progress=seen.append)
    assert read_tree(tmp_path / "out/tree") == contents
    assert seen[-1].present_bytes >= MIB
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tree"]


def test_a_pull_of_nothing_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        client.artifacts.pull("ab" * 32, tmp_path / "out/tree")
    assert not (tmp_path / "out").exists()


def test_an_empty_tree_comes_back(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    artifact = client.artifacts.push(tmp_path / "in")
    assert artifact.file_count == artifact.size_bytes == 0
    assert list(client.artifacts.pull(artifact, tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "change", [lambda p: p.write_bytes(b"x" * 5), lambda p: p.write_bytes(b"")]
)
def test_a_file_that_changes_meanwhile_is_named(
    change: Callable[[Path], object], client: Client, tmp_path: Path
) -> None:
    make_tree(tmp_path / "in", seed=6)
    victim = tmp_path / "in/exact.bin"
    victim.write_bytes(os.urandom(2 * MIB))
    changed = False

    def interfere(_: Progress) -> None:
        nonlocal changed
        if not changed:
            changed = True
            change(victim)

    with pytest.raises(FailedPreconditionError, match=r"exact\.bin"):
        client.artifacts.push(tmp_path / "in", progress=interfere)
