"""Which files of a folder are its source: in a git work tree, what git knows or would add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from modelyard.tracking.capture import git_output

SOURCE_IGNORES = (
    ".git",
    ".hg",
    ".venv",
    "venv",
    "__pycache__",
    "*.pyc",
    ".*_cache",
    ".ipynb_checkpoints",
    "node_modules",
    ".DS_Store",
)
"""What is never part of a model's source."""
MAX_DEPTH = 16


def listed_by_git(folder: Path) -> frozenset[str] | None:
    """Return the paths of the files that git does not ignore, and of the folders they are in.

    None: the folder is no part of a git work tree, or git ignores all of it.
    """
    if not folder.is_dir():
        return None
    files = frozenset(_files(folder, "", 0))
    parents = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    return files | (parents - {"."}) if files else None


def _files(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    listed = git_output(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        path = folder / name
        if path.is_dir() and not path.is_symlink():  # a repository of its own
            if depth < MAX_DEPTH:
                yield from _files(path, f"{prefix}{name.rstrip('/')}/", depth + 1)
        else:
            yield prefix + name
