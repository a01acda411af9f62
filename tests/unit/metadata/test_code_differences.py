"""Diffs of sources: what git itself would apply, and nothing that takes for ever."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from services.metadata.comparisons import worktrees
from services.metadata.comparisons.patching import (
    Side,
    TooLongError,
    header,
    hunks,
    lines_of,
    text_of,
)

BASE = "".join(f"line {number}\n" for number in range(60))


def soon() -> float:
    return time.monotonic() + 10


def patch(old: str | None, new: str | None, path: str = "a b.py") -> str:
    body = "".join(hunks(lines_of(old or ""), lines_of(new or ""), deadline=soon()))
    sides = [None if text is None else Side(path) for text in (old, new)]
    return header(sides[0], sides[1], changed=bool(body)) + body


def git(folder: Path, *arguments: str, feed: str = "") -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments],
        cwd=folder,
        input=feed,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (BASE, BASE.replace("line 7\n", "line seven\n").replace("line 50\n", "")),
        (None, "new\nfile\n"),
        ("gone\n", None),
        ("no end", "no end\n"),
        ("x\n", "x\ny"),
        ("form\x0cfeed\r\nand\x85more\n", "form\x0cfeed\r\nand\x85less\n"),
        ("", "filled\n"),
    ],
)
def test_git_applies_a_patch(tmp_path: Path, old: str | None, new: str | None) -> None:
    file = tmp_path / "a b.py"
    if old is not None:
        file.write_bytes(old.encode())
    git(tmp_path, "init", "-q")
    git(tmp_path, "apply", "--whitespace=nowarn", "-", feed=patch(old, new))
    assert (file.read_bytes().decode() if file.exists() else None) == new


def test_text_is_utf_8_without_nul() -> None:
    assert text_of("süß\n".encode()) == "süß\n"
    assert text_of(b"a\0b") is None
    assert text_of(b"\xff\xfe") is None


def test_what_takes_too_long_is_given_up() -> None:
    with pytest.raises(TooLongError):
        list(hunks(["x\n"] * 20_001, ["y\n"], deadline=soon()))
    with pytest.raises(TooLongError):
        list(hunks(["x\n"], ["y\n"], deadline=time.monotonic() - 1))


WORK: dict[str, dict[str, str | None]] = {
    "clean": {},
    "edit": {"m.py": BASE.replace("line 5\n", "LINE 5\n").replace("line 30\n", "a\nb\n")},
    "other": {"m.py": BASE.replace("line 7\n", "").replace("line 59\n", "the end")},
    "same spot": {"m.py": BASE.replace("line 5\n", "another 5\n"), "n.py": "n\n"},
    "insert": {"m.py": BASE.replace("line 5\n", "line 5\nmore\n")},
    "gone": {"m.py": None, "k.py": "changed\n"},
    "top": {"m.py": f"first\n{BASE}", "n.py": "another n\n"},
}


@pytest.mark.parametrize("second", WORK)
@pytest.mark.parametrize("first", WORK)
def test_two_work_trees_of_one_commit(tmp_path: Path, first: str, second: str) -> None:
    """The diff made of two diffs turns one work tree into the other."""
    files = {"m.py": BASE, "k.py": "kept\n"}

    def lay(changed: dict[str, str | None]) -> None:
        for name in ("m.py", "k.py", "n.py"):
            text = changed.get(name, files.get(name))
            place = tmp_path / name
            place.unlink(missing_ok=True)
            if text is not None:
                place.write_text(text)
        git(tmp_path, "add", "-A")

    git(tmp_path, "init", "-q")
    lay({})
    git(tmp_path, "commit", "-qm", "base")
    diffs = []
    for name in (first, second):
        lay(WORK[name])
        diffs.append(git(tmp_path, "diff", "HEAD"))
    wanted = git(tmp_path, "write-tree")
    found, binary = worktrees.difference(*diffs, deadline=soon())
    lay(WORK[first])
    if found:
        git(tmp_path, "apply", "--index", "-", feed=found)
    assert git(tmp_path, "write-tree") == wanted
    assert binary == []


def test_renames_and_binary_files_of_work_trees() -> None:
    rename = (
        "diff --git a/old.py b/new.py\nsimilarity index 100%\nrename from old.py\n"
        "rename to new.py\n"
    )
    binary = "diff --git a/x.bin b/x.bin\nBinary files a/x.bin and b/x.bin differ\n"
    found, left_out = worktrees.difference("", rename + binary, deadline=soon())
    assert "rename from old.py\nrename to new.py\n" in found
    assert left_out == ["x.bin"]


@pytest.mark.parametrize(
    "broken",
    [
        "--- a/m\n+++ b/m\n@@ -1,9 +1,9 @@\n-cut off\n",
        "--- a/m\n+++ b/m\n@@ -1 +1 @@\n-something else\n+x\n",
    ],
)
def test_a_diff_that_is_not_whole_or_of_another_commit(broken: str) -> None:
    good = "--- a/m\n+++ b/m\n@@ -1 +1 @@\n-a\n+b\n"
    with pytest.raises(worktrees.UnreadableError):
        worktrees.difference(good, broken, deadline=soon())
