"""Start a program that dies with its parent: `python launch.py PARENT_PID PROGRAM ARGUMENT…`.

A script of its own rather than a `preexec_fn`, which may deadlock in a process with threads.
It imports nothing of ours, so that it starts in a few milliseconds under `python -I -S`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process's life to its parent's and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    os.execvp(program[0], program)  # noqa: S606 - an argument list, no shell


if __name__ == "__main__":
    main()
