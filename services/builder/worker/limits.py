"""What the processes of a build may use together, and what says so to the kernel and to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.processes.limits import MIB, bound_to, limited_to, thread_variables

OPEN_FILES = 4_096
LOG_BYTES = 256 * MIB
_SUPERVISORS = 1
"""The processes of ours among a build's own: the first of its namespace."""


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
    log_bytes: int = LOG_BYTES
    """How much one command may print."""

    def variables(self) -> Mapping[str, str]:
        """Return the variables by which libraries learn how many threads to use."""
        return thread_variables(len(self.cores)) if self.cores else {}

    def around(self) -> list[str]:
        """Return the command that sets what is set from outside: the cores."""
        return bound_to(self.cores)

    def within(self, *, alone: bool) -> list[str]:
        """Return the command that sets what the kernel checks for each process.

        Args:
            alone: whether no process of others counts for the same user.
        """
        options = [f"--fsize={self.disk_bytes}", f"--nofile={OPEN_FILES}"]
        if alone:
            options.append(f"--nproc={self.process_count + _SUPERVISORS}")
        return limited_to(self.memory_bytes, *options)
