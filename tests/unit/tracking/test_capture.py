"""What a run is found to have run as."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from modelyard.metadata.v1 import run_pb2
from modelyard.tracking import capture, source
from modelyard.tracking.batches import read_batches


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://user:secret@example.com/team/repo.git")
    return tmp_path


def test_a_clean_repository(repository: Path) -> None:
    code = capture.capture_code(repository, "train.py")
    assert code["commit"] == git(repository, "rev-parse", "HEAD")
    assert code["branch"] == "main"
    assert code["dirty"] is False
    assert code["diff"] == ""
    assert code["repository"] == "https://example.com/team/repo.git"
    assert code["entry_point"] == "train.py"


def test_what_differs_from_the_commit(repository: Path) -> None:
    (repository / "train.py").write_text("two\n")
    code = capture.capture_code(repository, "train.py")
    assert code["dirty"] is True
    assert "-one\n+two" in code["diff"]


def test_a_long_difference_is_cut_with_a_note(repository: Path) -> None:
    (repository / "train.py").write_text("ü" * capture.MAX_DIFF_BYTES)
    diff = capture.capture_code(repository, "")["diff"]
    assert len(diff.encode()) <= capture.MAX_DIFF_BYTES
    assert diff.endswith(capture.CUT_NOTE)


def test_no_repository(tmp_path: Path) -> None:
    assert capture.capture_code(tmp_path, "x.py") == {"entry_point": "x.py"}
    assert capture.source_origin(tmp_path) is None


def test_the_origin_of_a_build_source(repository: Path) -> None:
    origin = capture.source_origin(repository)
    assert origin is not None
    assert origin.branch == "main"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://token@host/x.git", "https://host/x.git"),
        ("https://u:p@host:8443/x.git?key=1", "https://host:8443/x.git"),
        ("ssh://git@host/x.git", "ssh://host/x.git"),
        ("git@host:team/x.git", "host:team/x.git"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_urls_lose_their_credentials(url: str, shown: str) -> None:
    assert capture.without_credentials(url) == shown


def test_everything_captured_reaches_the_batch(repository: Path) -> None:
    data = repository / "data.jsonl"
    lines = capture.capture_lines(
        capture.capture_code(repository, "train.py"),
        environ={"MODELYARD_IMAGE": "img@sha256:" + "0" * 64},
    )
    data.write_bytes(lines)
    assert [json.loads(line)[0] for line in lines.splitlines()] == ["e", "c", "i"]
    (batch,) = read_batches(data, 0)
    environment = batch.request.environment
    assert environment.cpu_count > 0
    assert environment.memory_bytes > 1 << 20
    assert environment.python_implementation == "CPython"
    assert any(package.name == "pytest" for package in environment.packages)
    assert batch.request.code.commit
    assert batch.request.image.startswith("img@sha256:")
    assert isinstance(batch.request.code, run_pb2.CodeSource)


def files_of(spool: Path) -> set[str]:
    folder = spool / source.SNAPSHOT_FOLDER / "files"
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_source_is_kept_outside_of_a_repository(tmp_path: Path) -> None:
    work, spool = tmp_path / "work", tmp_path / "spool"
    spool.mkdir()
    kept = ["train.py", "lib/net.py", "config.yaml"]
    left = [".env", ".hidden/a.py", "venv/lib/b.py", "data/train.csv", "data/c.py", "weights.bin"]
    for name in [*kept, *left, "client_secret.json", "large.py", "venv/pyvenv.cfg"]:
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    (work / "large.py").write_bytes(b"#" * (source.MAX_FILE_BYTES + 1))
    (work / "link.py").symlink_to(work / "train.py")
    source.keep_source(spool, work, {"entry_point": "train.py"})
    assert files_of(spool) == set(kept)


def test_source_of_a_repository_is_what_git_would_take(repository: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool-of-it"
    spool.mkdir()
    (repository / ".gitignore").write_text("ignored.py\n")
    for name in ("ignored.py", "new.py"):
        (repository / name).write_text("x = 1\n")
    source.keep_source(spool, repository, capture.capture_code(repository, "train.py"))
    assert {"new.py", "train.py"} <= files_of(spool)
    assert "ignored.py" not in files_of(spool)
