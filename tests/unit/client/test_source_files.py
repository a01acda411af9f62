"""Which files of a folder are a build's source, and which commit they come from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from modelyard._source_files import SOURCE_IGNORES, listed_by_git
from modelyard._transfers.tree import list_files
from modelyard.tracking.capture import source_origin


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def pushed(folder: Path) -> set[str]:
    only = listed_by_git(folder)
    return {file.path for file in list_files(folder, ignore=SOURCE_IGNORES, only=only)}


@pytest.fixture
def churn(tmp_path: Path) -> Path:
    """A folder of a repository that holds other things as well."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*.csv\n.env\nlinked\n")
    (tmp_path / "README.md").write_text("all\n")
    folder = tmp_path / "models" / "churn"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "remote", "add", "origin", "https://u:secret@example.com/team/repo.git")
    return folder


def test_what_git_ignores_is_no_source(churn: Path) -> None:
    (churn / "rows.csv").write_text("1\n")
    (churn / ".env").write_text("TOKEN=x\n")
    (churn / "linked").symlink_to("/nowhere")  # which no artifact may hold
    (churn / "new.py").write_text("new\n")
    inner = churn / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "part.py").write_text("x\n")
    (churn / "__pycache__").mkdir()
    (churn / "__pycache__" / "x.pyc").touch()
    assert pushed(churn) == {"model.py", "new.py", "inner/part.py"}
    (churn / "model.py").unlink()
    assert "model.py" not in pushed(churn)


def test_without_git_all_is_source(tmp_path: Path, churn: Path) -> None:
    assert listed_by_git(tmp_path.parent) is None
    (churn.parents[1] / ".gitignore").write_text("all\n")
    ignored = churn.parents[1] / "all"
    ignored.mkdir()
    (ignored / "model.py").touch()
    assert pushed(ignored) == {"model.py"}


def test_the_origin_of_a_part_of_a_repository(churn: Path) -> None:
    top = churn.parents[1]
    (top / "README.md").write_text("changed elsewhere\n")
    origin = source_origin(churn)
    assert origin is not None
    assert (origin.dirty, origin.diff) == (False, "")
    assert origin.repository == "https://example.com/team/repo.git"
    (churn / "new.py").write_text("new\n")
    origin = source_origin(churn)
    assert origin is not None
    assert (origin.dirty, origin.diff) == (True, "")
    (churn / "model.py").write_text("two\n")
    git(top, "checkout", "-q", "--detach")
    origin = source_origin(churn)
    assert origin is not None
    assert (origin.branch, len(origin.commit)) == ("", 40)
    assert "+two" in origin.diff
    assert "elsewhere" not in origin.diff


def test_before_the_first_commit_there_is_no_origin(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "model.py").touch()
    assert source_origin(tmp_path) is None
    assert pushed(tmp_path) == {"model.py"}
