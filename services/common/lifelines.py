"""Child processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import os
import shutil

_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'
"""Who was killed before the kernel was told is not seen by it: the child looks once itself."""


def dies_with_us() -> tuple[str, ...]:
    """Return what to put before a command so that the kernel kills it when this thread is gone.

    Empty where util-linux has no `setpriv`: then only an orderly end takes the child along.
    """
    setpriv = shutil.which("setpriv")
    if not setpriv:
        return ()
    return (setpriv, "--pdeathsig", "KILL", "--", "sh", "-c", _IF_PARENT_LIVES, str(os.getpid()))
