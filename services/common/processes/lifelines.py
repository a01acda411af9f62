"""Child processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_LAUNCH = Path(__file__).with_name("launch.py")
_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'
"""Who was killed before the kernel was told is not seen by it: the child looks once itself."""


def dies_with_us() -> tuple[str, ...]:
    """Return what to put before a command so that the kernel kills it when this thread is gone.

    Where util-linux has no `setpriv`, Python does the same, some milliseconds later.
    """
    parent, setpriv = str(os.getpid()), shutil.which("setpriv")
    if not setpriv:
        return (sys.executable, "-I", "-S", str(_LAUNCH), parent)
    return (setpriv, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_PARENT_LIVES, parent)
