"""Removing environments that nobody has used for long, or the oldest when they are too large."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.common.environments.making import MARKER, PROJECTS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    place: Path
    used: float
    """When it was used last, in seconds of the wall clock."""
    size: int


def remove_old(folder: Path, *, max_bytes: int, max_age: float) -> None:
    """Remove environments of all projects by their last use, but none that is in use.

    Args:
        folder: where `Environments` keeps them.
        max_bytes: how large those that stay may be together.
        max_age: after how many seconds without use one is removed.
    """
    total = 0
    for kept in sorted(_found(folder), key=lambda kept: kept.used, reverse=True):
        total += kept.size
        if total > max_bytes or time.time() - kept.used > max_age:
            _remove(kept.place)


def _found(folder: Path) -> Iterator[_Kept]:
    for marker in (folder / PROJECTS).glob(f"*/*/{MARKER}"):
        with contextlib.suppress(OSError, ValueError):
            yield _Kept(marker.parent, marker.stat().st_mtime, int(marker.read_text()))


def _remove(place: Path) -> None:
    """Remove a folder unless somebody holds it; its marker goes first."""
    descriptor = os.open(
        place.with_name(f"{place.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        (place / MARKER).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        place.with_name(f"{place.name}.lock.txt").unlink(missing_ok=True)
        logger.info("environment removed", extra={"folder": str(place)})
    finally:
        os.close(descriptor)
