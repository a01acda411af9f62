"""How the C library's allocator keeps memory, set for processes through which bytes stream.

By default it gives large blocks back to the kernel as soon as they are freed, and pays for every
page of them again with the next message; and every thread fills an arena of its own.
"""

from __future__ import annotations

import ctypes

_MIB = 1024 * 1024
# From malloc.h: M_ARENA_MAX, M_MMAP_THRESHOLD (32 MiB is the most there is), M_TRIM_THRESHOLD.
_OPTIONS = ((-8, 2), (-3, 32 * _MIB), (-1, 128 * _MIB))


def keep_freed_memory() -> None:
    """Let freed blocks be used again; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _OPTIONS:
            mallopt(option, value)
