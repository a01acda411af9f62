"""What says to the kernel, and to libraries, how much a program's processes may use."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

MIB = 1024 * 1024
_SLACK_BYTES = 512 * MIB
"""How much more than its memory one process may ask for: not all that is asked for is used."""

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
)


def thread_variables(count: int) -> dict[str, str]:
    """Return the variables by which libraries learn how many threads to use."""
    return dict.fromkeys(_THREADS, str(count))


def bound_to(cores: Sequence[int]) -> list[str]:
    """Return the command that binds a program to cores; none: to any."""
    if not cores:
        return []
    return [_program("taskset"), "--cpu-list", ",".join(map(str, cores))]


def limited_to(memory_bytes: int, *options: str) -> list[str]:
    """Return the command that limits each process of a program, with more options of `prlimit`."""
    data = memory_bytes + max(memory_bytes // 4, _SLACK_BYTES)
    return [_program("prlimit"), f"--data={data}", "--core=0", *options, "--"]


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"


def _program(name: str) -> str:
    """Find a program of util-linux, which every Debian has."""
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") or name
