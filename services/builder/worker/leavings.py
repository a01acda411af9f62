"""Reading what a build's code left behind: it may be anything, a link or a pipe as well."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_leaving(path: Path, *, max_bytes: int) -> bytes | None:
    """Return a plain file's bytes; None when there is none, or it is too large."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size > max_bytes:
            return None
        return file.read(max_bytes)
