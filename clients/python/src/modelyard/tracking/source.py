"""The source of a run: copied beside its spool as it starts, sent as an artifact later.

Only what looks like source is taken, and little of it: at most 2,000 files and 10 MiB, of a
repository what git knows or would add, elsewhere what lies beside and below the script that was
started. Hidden folders, environments, caches, data and what is named like a secret stay out.
MODELYARD_SNAPSHOT=off takes nothing.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelyard._names import project_of
from modelyard._transfers import push as _push
from modelyard._transport.calls import call
from modelyard._transport.connection import Connection
from modelyard.artifact.v1 import artifact_pb2, artifact_service_pb2
from modelyard.packing.snapshot import IGNORED
from modelyard.tracking import records
from modelyard.tracking.capture import git_output

SNAPSHOT_FOLDER = "snapshot"
MAX_FILES = 2_000
MAX_BYTES = 10 * 1024 * 1024
MAX_FILE_BYTES = 1024 * 1024
MAX_LOOKED_AT = 50_000

_FILES, _CODE = "files", "code.json"
_SUFFIXES = frozenset(
    [
        ".py",
        ".pyi",
        ".pyx",
        ".ipynb",
        ".toml",
        ".cfg",
        ".ini",
        ".yaml",
        ".yml",
        ".json",
        ".txt",
        ".md",
        ".rst",
        ".sh",
        ".sql",
        ".r",
        ".jl",
        ".c",
        ".cc",
        ".cpp",
        ".h",
        ".hpp",
        ".cu",
        ".cuh",
        ".rs",
        ".go",
        ".js",
        ".ts",
        ".proto",
        ".lock",
        ".jinja",
        ".j2",
    ]
)
_NAMES = frozenset({"Dockerfile", "Makefile", "Procfile", "LICENSE"})
_DATA = (*IGNORED, ".*", "env", "site-packages", "data", "datasets", "outputs", "runs", "mlruns")
_SECRET = ("*secret*", "*credential*", "*token*.json", "*token*.txt", "*password*")


def keep_source(spool: Path, directory: Path, code: Mapping[str, Any]) -> None:
    """Copy a run's source into its spool, with the facts it belongs to; once."""
    target = spool / SNAPSHOT_FOLDER
    if os.environ.get("MODELYARD_SNAPSHOT", "").lower() in ("off", "0", "false"):
        return
    # Whole or not at all: a sender that was killed leaves a folder of another name.
    fresh = spool / f"{SNAPSHOT_FOLDER}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    root, found = find_source(directory, str(code["entry_point"]))
    for path in _bounded(root, found):
        place = fresh / _FILES / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, place)
    if fresh.exists():
        (fresh / _CODE).write_text(json.dumps(dict(code)))
        fresh.rename(target)


def find_source(directory: Path, entry_point: str) -> tuple[Path, list[Path]]:
    """Return a root, and below it the files that are source, those near the script first."""
    top = git_output(directory, "rev-parse", "--show-toplevel").strip()
    if top:
        root = Path(top)
        listed = git_output(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names: Iterable[Path] = (Path(name) for name in listed.split("\0") if name)
    else:
        script = directory / entry_point
        root = script.parent if entry_point and script.is_file() else directory
        names = _walk(root)
    wanted = {name for name in names if _is_source(name)}
    near = (directory / entry_point).parent

    def order(path: Path) -> tuple[bool, int, str]:
        return not (root / path).is_relative_to(near), len(path.parts), str(path)

    return root, sorted(wanted, key=order)


def send_source(spool: Path, connection: Connection, run: str) -> bytes:
    """Send what `keep_source` kept; return the record that tells of it.

    Raises:
        ModelyardError: It cannot be sent.
    """
    folder = spool / SNAPSHOT_FOLDER
    artifact = connection.run(_push.push(project_of(run), folder / _FILES))
    hold = artifact_pb2.Hold(artifact=artifact.name, holder=run)
    request = artifact_service_pb2.HoldArtifactRequest(hold=hold)
    connection.call(call(request, artifact_service_pb2.HoldArtifactResponse, lambda r: r.hold))
    code = json.loads((folder / _CODE).read_text())
    return records.encode(["c", {**code, "snapshot": artifact.name}])


def drop_source(spool: Path) -> None:
    """Remove the copy: it was sent, or never will be."""
    shutil.rmtree(spool / SNAPSHOT_FOLDER, ignore_errors=True)


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below a folder; of a home folder or a disk only what lies directly in it."""
    deep = root != Path.home() and root != Path(root.anchor)
    looked_at = 0
    for folder, folders, files in os.walk(root):
        looked_at += len(folders) + len(files)
        if looked_at > MAX_LOOKED_AT:
            return
        here = Path(folder)
        folders[:] = [
            name
            for name in sorted(folders)
            if deep and not _matches(name, _DATA) and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here.relative_to(root) / name for name in sorted(files))


def _is_source(path: Path) -> bool:
    if path.suffix.lower() not in _SUFFIXES and path.name not in _NAMES:
        return False
    return not any(_matches(part, (".*", "__pycache__")) for part in path.parts) and not _matches(
        path.name.lower(), _SECRET
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _bounded(root: Path, paths: Iterable[Path]) -> Iterator[Path]:
    count = size = 0
    for path in paths:
        try:
            found = (root / path).lstat()
        except OSError:  # in git's index only, or gone by now
            continue
        if not (root / path).is_file() or (root / path).is_symlink():
            continue
        if found.st_size > MAX_FILE_BYTES or size + found.st_size > MAX_BYTES:
            continue
        count, size = count + 1, size + found.st_size
        if count > MAX_FILES:
            return
        yield path
