"""How two commits differ, asked of the work tree that the command runs in."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelyard.cli.comparing.view import Code

MAX_BYTES = 1024 * 1024
_SECONDS = 20.0
# What a run recorded is not to be taken for an option, or for anything but a commit.
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def fill_in(codes: Sequence[Code], directory: Path) -> list[Code]:
    """Return the differences, those between commits that are known here filled in."""
    return [_filled(code, directory) for code in codes]


def _filled(code: Code, directory: Path) -> Code:
    old, new = code.commits
    if code.diff or old == new or not (_COMMIT.fullmatch(old) and _COMMIT.fullmatch(new)):
        return code
    if any(
        _git(directory, "cat-file", "-e", f"{commit}^{{commit}}") is None for commit in (old, new)
    ):
        return code
    found = _git(directory, "diff", "--no-color", "--no-ext-diff", "--no-textconv", old, new, "--")
    if found is None:
        return code
    text = found[:MAX_BYTES].decode("utf-8", "replace")
    note = f"between the commits {old[:12]} and {new[:12]}, as this work tree has them"
    return replace(code, diff=text, cut=len(found) > MAX_BYTES, note=note)


def _git(directory: Path, *arguments: str) -> bytes | None:
    """Return what git says; None when it fails, or there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
