"""Capture: what a run ran as, found without being asked: code, environment, image."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from modelyard.tracking import records

if TYPE_CHECKING:
    from modelyard.builder.v1 import build_pb2

MAX_DIFF_BYTES = 1024 * 1024
CUT_NOTE = "\n[cut by modelyard: the difference is longer than 1 MiB]\n"
_GIT_TIMEOUT = 20.0
_GPU_TIMEOUT = 5.0


def capture_lines(code: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> bytes:
    """Return the records of everything that can be found out about this process's surroundings."""
    env = os.environ if environ is None else environ
    lines = records.encode(["e", capture_environment()])
    lines += records.encode(["c", code])
    if image := env.get("MODELYARD_IMAGE"):
        lines += records.encode(["i", image])
    return lines


def capture_code(
    directory: Path, entry_point: str, *, part: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the fields of a CodeSource: the commit and how the work tree differs from it.

    With `part`, paths in the directory, only how these differ.
    """
    code: dict[str, Any] = {"entry_point": entry_point}
    commit = git_output(directory, "rev-parse", "HEAD")
    if not commit:
        return code
    code["commit"] = commit.strip()
    branch = git_output(directory, "rev-parse", "--abbrev-ref", "HEAD").strip()
    code["branch"] = "" if branch == "HEAD" else branch
    code["repository"] = without_credentials(
        git_output(directory, "remote", "get-url", "origin").strip()
    )
    code["dirty"] = bool(git_output(directory, "status", "--porcelain", "--", *part).strip())
    diff = ("diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color", "--", *part)
    code["diff"] = _cut(git_output(directory, *diff))
    return code


def source_origin(folder: Path) -> build_pb2.SourceOrigin | None:
    """Return from which commit a folder's files come, and how these differ from it.

    None outside of a repository, and before its first commit. New files make it dirty but are
    not in the difference: they are in the source itself.
    """
    from modelyard.builder.v1 import build_pb2  # noqa: PLC0415 - the trainer needs no protobuf

    facts = capture_code(folder.absolute(), "", part=(".",))
    if "commit" not in facts:
        return None
    del facts["entry_point"]
    return build_pb2.SourceOrigin(**facts)


def capture_environment() -> dict[str, Any]:
    """Return the fields of a RuntimeEnvironment; `packages` as pairs of name and version."""
    gpus, driver = _gpus()
    return {
        "python_version": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": _cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "gpu_driver": driver,
        "packages": installed_packages(),
        "hostname": platform.node(),
    }


def installed_packages() -> list[tuple[str, str]]:
    """Return the installed distributions as normalised name and version, by name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a half-removed distribution has none
            found.setdefault(normalised(name), distribution.version)
    return sorted(found.items())


def normalised(name: str) -> str:
    """Return a distribution's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def without_credentials(url: str) -> str:
    """Return a remote's URL without user, password and query."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        return url if "@" not in url else url.partition("@")[2]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def git_output(directory: Path, *arguments: str) -> str:
    """Return what git says; nothing when there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_TIMEOUT,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _cut(diff: str) -> str:
    data = diff.encode()
    if len(data) <= MAX_DIFF_BYTES:
        return diff
    kept = data[: MAX_DIFF_BYTES - len(CUT_NOTE.encode())].decode("utf-8", "ignore")
    return kept + CUT_NOTE


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _gpus() -> tuple[list[str], str]:
    """Return the GPUs' names and their driver's version, as nvidia-smi knows them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return [], ""
    query = ["--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=_GPU_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return [], ""
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    if done.returncode != 0 or not rows:
        return [], ""
    return [name.strip() for name, _, _ in rows], rows[0][2].strip()
