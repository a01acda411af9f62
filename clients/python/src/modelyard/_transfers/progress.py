"""How far a transfer is: what a callback is told, and the meter that counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a push or a pull is."""

    done_bytes: int
    """What is done of `total_bytes`, `present_bytes` included."""
    total_bytes: int
    """The sizes of all files."""
    present_bytes: int
    """What was there already and did not have to travel."""
    seconds: float
    """Since the transfer began."""

    @property
    def rate(self) -> float:
        """What travelled so far, in bytes a second."""
        return (self.done_bytes - self.present_bytes) / max(self.seconds, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest would take at the present pace; None before there is one."""
        if not self.done_bytes:
            return None
        return (self.total_bytes - self.done_bytes) * self.seconds / self.done_bytes

    @property
    def present_share(self) -> float:
        """Which share of what is done was there already, 0 to 1."""
        return self.present_bytes / self.done_bytes if self.done_bytes else 0.0


OnProgress = Callable[[Progress], object]
"""Called in one thread at a time, with ever more bytes done."""


class Meter:
    """Counts what is done, from any thread, and tells a callback."""

    def __init__(self, total: int, callback: OnProgress | None) -> None:
        self._total = total
        self._callback = callback
        self._done = 0
        self._present = 0
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int, *, present: bool = False) -> None:
        """Count bytes that travelled or, if `present`, did not have to."""
        with self._lock:
            self._done += count
            self._present += count if present else 0
            if self._callback and count:
                seconds = time.monotonic() - self._started
                self._callback(Progress(self._done, self._total, self._present, seconds))


class Again(Meter):
    """Counts for another meter what is done once more, but for what that has counted."""

    def __init__(self, meter: Meter, counted: int) -> None:
        super().__init__(0, None)
        self._meter = meter
        self._counted = counted

    def add(self, count: int, *, present: bool = False) -> None:
        """Count bytes, beginning with those that were counted already."""
        with self._lock:
            known = min(self._counted, count)
            self._counted -= known
        self._meter.add(count - known, present=present)
