"""What the processes of a build may use together, and what says so to the kernel and to them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

MIB = 1024 * 1024
OPEN_FILES = 4_096
_SLACK_BYTES = 512 * MIB
"""How much more than its memory one process may ask for: not all that is asked for is used."""
_SUPERVISORS = 1
"""The processes of ours among a build's own: the first of its namespace."""

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of a build may use together."""

    cpu_cores: float
    memory_bytes: int
    disk_bytes: int
    process_count: int
    """Processes and threads at a time."""
    cores: tuple[int, ...] = ()
    """The cores that they are bound to; empty: none."""

    def variables(self) -> Mapping[str, str]:
        """Return the variables by which libraries learn how many threads to use."""
        return dict.fromkeys(_THREADS, str(len(self.cores))) if self.cores else {}

    def around(self) -> list[str]:
        """Return the command that sets what is set from outside: the cores."""
        if not self.cores:
            return []
        return [_program("taskset"), "--cpu-list", ",".join(map(str, self.cores))]

    def within(self, *, alone: bool) -> list[str]:
        """Return the command that sets what the kernel checks for each process.

        Args:
            alone: whether no process of others counts for the same user.
        """
        data = self.memory_bytes + max(self.memory_bytes // 4, _SLACK_BYTES)
        command = [_program("prlimit"), f"--data={data}", f"--fsize={self.disk_bytes}"]
        command += ["--core=0", f"--nofile={OPEN_FILES}"]
        if alone:
            command.append(f"--nproc={self.process_count + _SUPERVISORS}")
        return [*command, "--"]


def _program(name: str) -> str:
    """Find a program of util-linux, which every Debian has."""
    return shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") or name


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
