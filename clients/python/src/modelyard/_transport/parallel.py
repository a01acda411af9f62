"""Carrying out flows side by side: in threads for blocking programs, in tasks for asyncio.

The first error is the one that is raised; the calls of the others are cancelled, and
all of them have ended when it is.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelyard._transport.calls import Flow, Parallel
from modelyard.errors import CancelledError

_END = object()


class Scope:
    """What runs together in threads and ends together; the root one never ends by itself."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.is_root = parent is None
        self._parent = parent
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._cancels: list[Callable[[], object]] = []

    @contextmanager
    def ending(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Have something cancelled if the scope ends meanwhile."""
        if self._parent is None:
            yield
            return
        with self._lock:
            self._cancels.append(cancel)
        try:
            if self._ended.is_set():
                cancel()
            yield
        finally:
            with self._lock:
                self._cancels.remove(cancel)

    def ends_within(self, seconds: float) -> bool:
        """Wait; say whether the scope has ended or ends meanwhile."""
        return self._ended.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait, unless the scope has ended or ends."""
        if self.ends_within(seconds):
            raise CancelledError("another part of the same work failed")

    def end(self) -> None:
        """Cancel all that runs and may yet begin."""
        with self._lock:
            self._ended.set()
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel()


class _Threads:
    """The threads of one command, and what became of their flows."""

    def __init__(
        self, command: Parallel, scope: Scope, run: Callable[[Scope, Flow[Any]], Any]
    ) -> None:
        self.error: BaseException | None = None
        self.results: dict[int, Any] = {}
        self._scope = scope
        self._run = run
        self._flows = enumerate(command.flows)
        self._taking = threading.Lock()
        self._failing = threading.Lock()
        self._ends: list[threading.Event] = []

    def start(self) -> None:
        """Start a thread that carries out one flow after the other, until there is none."""
        end = threading.Event()
        # In a copy of the caller's context: its calls belong to the caller's trace.
        target = contextvars.copy_context().run
        threading.Thread(target=target, args=(self._work, end), daemon=True).start()
        self._ends.append(end)

    def wait(self) -> None:
        """Wait until all threads have ended."""
        # Not by `Thread.join`: before Python 3.13 a thread counts as ended once Ctrl-C came then.
        for end in self._ends:
            end.wait()

    def _work(self, end: threading.Event) -> None:
        try:
            while (taken := self._take()) is not None:
                number, flow = taken
                self.results[number] = self._run(self._scope, flow)
        except BaseException as error:
            self.fail(error)
        finally:
            end.set()

    def fail(self, error: BaseException) -> None:
        """Keep the first error and end the rest."""
        with self._failing:
            if self.error is None:
                self.error = error
        self._scope.end()

    def _take(self) -> tuple[int, Flow[Any]] | None:
        with self._taking:
            return None if self.error else next(self._flows, None)


def run_threads(
    command: Parallel, parent: Scope, run: Callable[[Scope, Flow[Any]], Any]
) -> list[Any]:
    """Carry out flows in threads of their own."""
    scope = Scope(parent)
    work = _Threads(command, scope, run)
    with parent.ending(scope.end):
        try:
            for _ in range(command.limit):
                work.start()
            work.wait()
        except BaseException as error:  # such as Ctrl-C, which reaches the first thread alone
            work.fail(error)
            work.wait()
    if work.error is not None:
        raise work.error
    return [work.results[number] for number in sorted(work.results)]


async def run_tasks(
    command: Parallel,
    run: Callable[[Flow[Any]], Awaitable[Any]],
    in_thread: Callable[..., Awaitable[Any]],
) -> list[Any]:
    """Carry out flows in tasks of their own; what is done between two flows runs in a thread."""
    flows = enumerate(command.flows)
    taking = asyncio.Lock()
    results: dict[int, Any] = {}

    async def work() -> None:
        while True:
            async with taking:
                taken = await in_thread(next, flows, _END)
            if taken is _END:
                return
            number, flow = taken
            results[number] = await run(flow)

    tasks = [asyncio.create_task(work()) for _ in range(command.limit)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[number] for number in sorted(results)]
