"""Child processes that must not outlive the one that started them, however it ends."""

from __future__ import annotations

import shutil


def dies_with_us() -> tuple[str, ...]:
    """Return what to put before a command so that the kernel kills it when this thread is gone.

    Empty where util-linux has no `setpriv`: then only an orderly end takes the child along.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
