"""Batches: requests that wait are gathered and predicted together.

One thread gathers at a time, so that batches are as large as may be; the others predict meanwhile.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batching:
    """How many requests are predicted together at most, and how long the first waits for more."""

    max_size: int = 1
    max_delay: float = 0.0
    """In seconds; 0: only what waits anyway is joined."""

    @property
    def is_on(self) -> bool:
        """Say whether anything is joined at all."""
        return self.max_size > 1


class Batcher(Generic[T]):
    """Has threads work on batches of what is put in."""

    def __init__(
        self, work: Callable[[list[T]], None], batching: Batching, *, threads: int
    ) -> None:
        self._work = work
        self._batching = batching
        self._waiting = queue.SimpleQueue[T | None]()
        self._gathering = threading.Lock()
        for number in range(threads):
            name = f"predict-{number}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, item: T) -> None:
        """Have something worked on; never waits."""
        self._waiting.put(item)

    def close(self) -> None:
        """Let the threads end; the ones that work are not waited for."""
        self._waiting.put(None)

    def _run(self) -> None:
        while True:
            with self._gathering:
                batch = self._gather()
            if not batch:
                return
            self._work(batch)

    def _gather(self) -> list[T]:
        """Wait for a batch; an empty one is the end."""
        first = self._waiting.get()
        if first is None:
            self._waiting.put(None)  # the other threads are to end, too
            return []
        batch = [first]
        deadline = time.monotonic() + self._batching.max_delay
        while len(batch) < self._batching.max_size:
            item = self._next(deadline - time.monotonic())
            if item is None:
                break
            batch.append(item)
        return batch

    def _next(self, seconds: float) -> T | None:
        try:
            item = self._waiting.get(timeout=seconds) if seconds > 0 else self._waiting.get_nowait()
        except queue.Empty:
            return None
        if item is None:
            self._waiting.put(None)
        return item
