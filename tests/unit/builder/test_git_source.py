"""Git sources: what is fetched, what is refused, and that credentials go where they belong."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from modelyard.builder.v1 import build_pb2

from services.builder.worker import git_source
from services.builder.worker.git_fetch import FetchError, Order, fetch
from services.builder.worker.git_source import GitFailedError
from services.builder.worker.settings import WorkerSettings
from tests.git_server import LINK, PLAIN, SUBMODULE, GitServer, serving

SECRET = "projects/default/secrets/git"
SETTINGS = WorkerSettings(token_file="", git_http=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "repository") as server:
        yield server


def order(server: GitServer, folder: Path, ref: str = "", subdirectory: str = "") -> Order:
    folder.mkdir()
    return Order(server.url, ref, subdirectory, str(folder), ("https", "http"), 10_000)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_refs_are_resolved_to_commits(server: GitServer, tmp_path: Path) -> None:
    first = server.commit({"model.py": "1"})
    second = server.commit({"model.py": "2", "deep/er/model.py": "x", "run": (PLAIN | 0o111, b"")})
    other = server.commit({"model.py": "3"}, branch="feature/x")
    server.tag("v1", first)
    expected = {
        "": (second, "main"),
        "main": (second, "main"),
        "refs/heads/main": (second, "main"),
        "feature/x": (other, "feature/x"),
        "v1": (first, ""),
        second: (second, ""),
        first: (first, ""),
    }
    for number, (ref, (commit, branch)) in enumerate(expected.items()):
        found = fetch(order(server, tmp_path / str(number), ref))
        assert (found["commit"], found["branch"]) == (commit, branch), ref
    assert files(tmp_path / "0") == {"model.py": "2", "deep/er/model.py": "x", "run": ""}
    assert (tmp_path / "0" / "run").stat().st_mode & 0o777 == 0o755
    assert files(tmp_path / "6") == {"model.py": "1"}
    fetch(order(server, tmp_path / "deep", "main", "deep/er"))
    assert files(tmp_path / "deep") == {"model.py": "x"}
    for ref, folder, problem in (
        ("nothing", "", "no branch or tag 'nothing'"),
        ("0" * 40, "", "has no commit"),
        ("main", "nothing", "has no folder 'nothing'"),
        ("main", "model.py", "has no folder"),
    ):
        with pytest.raises(FetchError, match=problem):
            fetch(order(server, tmp_path / f"{ref[:8]}-{folder}", ref, folder))


def test_trees_that_no_source_may_be(server: GitServer, tmp_path: Path) -> None:
    server.commit({"model.py": "x", "library": (SUBMODULE, b"a" * 40)}, branch="submodule")
    fetch(order(server, tmp_path / "submodule", "submodule"))
    assert files(tmp_path / "submodule") == {"model.py": "x"}
    for branch, tree, problem in (
        ("link", {"model.py": (LINK, b"/etc/passwd")}, "symbolic link"),
        ("climb", {"..": (PLAIN, b"x")}, "'..'"),
        ("climbs", {"a/../../b": (PLAIN, b"x")}, "'..'"),
        ("case", {"a": "x", "A": "y"}, "case alone"),
        ("large", {"a": "x" * 6_000, "b": "y" * 6_000}, "more than 10000 bytes"),
    ):
        server.commit(tree, branch=branch)
        with pytest.raises(FetchError, match=problem):
            fetch(order(server, tmp_path / branch, branch))
    assert not (tmp_path.parent / "b").exists()


async def get(
    server: GitServer, folder: Path, value: str = "", settings: WorkerSettings = SETTINGS
) -> build_pb2.SourceOrigin:
    git = build_pb2.GitSource(url=server.url, secret=SECRET if value else "")
    return await git_source.fetch(git, folder, secrets={SECRET: value}, settings=settings)


async def test_credentials_are_given_to_their_host_alone(server: GitServer, tmp_path: Path) -> None:
    commit = server.commit({"model.py": "x"})
    server.credentials = "git:token-1"
    with serving(tmp_path / "other") as thief:
        for value, problem in (("", "name a secret"), ("wrong", "refuses the secret")):
            with pytest.raises(GitFailedError, match=problem):
                await get(server, tmp_path / f"refused-{value}", value)
        origin = await get(server, tmp_path / "let-in", "token-1\n")
        assert (origin.repository, origin.commit, origin.branch) == (server.url, commit, "main")
        server.credentials, server.redirect = "", thief.url
        thief.commit({"model.py": "other"})
        await get(server, tmp_path / "redirected", "ada:secret")
        assert files(tmp_path / "redirected") == {"model.py": "other"}
        assert any("Basic" in line for line in server.seen)
        assert not any("Basic" in line for line in thief.seen)
        server.redirect = "file://" + str(tmp_path / "other")
        with pytest.raises(GitFailedError, match="file://"):
            await get(server, tmp_path / "file")
    nobody = build_pb2.GitSource(url="http://127.0.0.1:1/x.git")
    with pytest.raises(GitFailedError, match=r"x\.git cannot be reached"):
        await git_source.fetch(nobody, tmp_path / "nobody", secrets={}, settings=SETTINGS)
    with pytest.raises(GitFailedError, match="does not fetch from http://"):
        await get(server, tmp_path / "plain", settings=WorkerSettings(token_file=""))


async def test_a_repository_that_is_too_large(server: GitServer, tmp_path: Path) -> None:
    server.commit({"model.py": "x", "weights.bin": (PLAIN, os.urandom(4_000_000))})
    small = WorkerSettings(token_file="", git_http=True, source_bytes=1_000_000)
    with pytest.raises(GitFailedError, match="File too large"):
        await get(server, tmp_path / "large", settings=small)
    assert sorted(os.listdir(tmp_path)) == ["large", "repository"]  # noqa: PTH208 - a test's own


def command_of(process: psutil.Process) -> str:
    """Return how a process was started; empty for one that has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one too
        return ""


async def test_a_fetch_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        git = build_pb2.GitSource(url=url)
        fetching = asyncio.create_task(
            git_source.fetch(git, tmp_path / "x", secrets={}, settings=SETTINGS)
        )
        silent.settimeout(30)
        connection, _ = await asyncio.to_thread(silent.accept)
        children = [c for c in psutil.Process().children() if "git_fetch" in command_of(c)]
        fetching.cancel()
        await asyncio.wait([fetching])
        connection.close()
    assert children
    assert not any(child.is_running() for child in children)
