"""Watching a build's processes: the first limit that they pass ends them, and is named."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from services.builder.worker.limits import Limits
from services.common.processes import usage
from services.common.processes.limits import MIB, size

LOOK_SECONDS = 0.1
CLOSE_SECONDS = 0.02
"""How often memory is looked at once half of it is used."""
DISK_SECONDS = 0.4
REST = 10
"""How many times as long as a look took it is waited until the next."""
RESERVE_BYTES = 256 * MIB
"""What must stay free of the machine's memory and disk, whoever uses it."""
LAST_LINES = 30
LINE_BYTES = 64
"""What a line counts beside its text: empty ones are kept as well."""
KILLED = 9

OUT_OF_MEMORY = "OUT_OF_MEMORY"
DISK_FULL = "DISK_FULL"
TOO_MANY_PROCESSES = "TOO_MANY_PROCESSES"
LOG_TOO_LARGE = "LOG_TOO_LARGE"

_NO_THREAD, _NO_PROCESS = "can't start new thread", "Resource temporarily unavailable"
_SIGNS = {
    OUT_OF_MEMORY: ("MemoryError", "std::bad_alloc", "Cannot allocate memory"),
    DISK_FULL: ("File too large", "No space left on device", "SIGXFSZ"),
    TOO_MANY_PROCESSES: (_NO_THREAD, _NO_PROCESS),
}
"""What a program prints when the kernel refused it something."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was passed, as `Build.failure` tells it."""

    reason: str
    message: str


@dataclass(slots=True)
class Watch:
    """Looks at the processes of one command."""

    limits: Limits
    folders: Sequence[Path]
    """What they may write to."""
    own_processes: int
    """How many of the processes are there to keep the others in."""
    written: int = 0
    """How many bytes were in the folders before."""
    memory: int = 0
    """The most that was seen; so are the following."""
    disk: int = 0
    processes: int = 0
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    """What they printed last."""
    crowded: bool = False
    """Whether they ever said that they may not start another."""
    wondering: bool = False
    """Whether they said what may mean that, which the counts before and after it tell."""
    present: int = 0
    """How many they were when they were last counted."""
    printed: int = 0
    """How many bytes they printed."""
    flooded: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once that is too much."""
    kills: int = field(default_factory=usage.kernel_kills)

    def hear(self, text: str) -> None:
        """Take note of a line that they printed."""
        self.last.append(text)
        if _NO_THREAD in text or ("fork" in text and _NO_PROCESS in text):
            self.crowded = True
        elif _NO_PROCESS in text:  # of a socket it means nothing
            self.crowded, self.wondering = self.crowded or self._are_many(self.present), True
        self.printed += LINE_BYTES + (len(text) if text.isascii() else len(text.encode()))
        if self.printed > self.limits.log_bytes:
            self.flooded.set()

    async def breach(self, process: int) -> Breach:
        """Wait until the descendants of a process pass a limit, and say which."""
        looks = (self._until_memory(process), self._until_disk(process), self._until_flooded())
        tasks = [asyncio.create_task(look) for look in looks]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()

    def refusal(self, status: int) -> Breach | None:
        """Say which limit made a command fail, if it was one that the kernel held by itself."""
        if status == 0:
            return None
        if status in (-KILLED, 128 + KILLED) and usage.kernel_kills() > self.kills:
            message = "the machine ran out of memory, and the kernel ended a process of the build"
            return Breach(OUT_OF_MEMORY, f"{message}; it was seen to use {size(self.memory)}")
        text = "\n".join(self.last)
        for reason, signs in _SIGNS.items():
            if any(sign in text for sign in signs):
                return Breach(reason, self._refused(reason))
        # Of many that could start no more each may have printed a page since.
        if self.crowded and self._are_many(self.processes):
            return Breach(TOO_MANY_PROCESSES, self._refused(TOO_MANY_PROCESSES))
        return None

    def count(self, processes: int) -> None:
        """Take note of how many they are now."""
        if self.wondering:
            self.crowded, self.wondering = self.crowded or self._are_many(processes), False
        self.present, self.processes = processes, max(self.processes, processes)

    def _are_many(self, processes: int) -> bool:
        return processes > self.limits.process_count // 2

    def _refused(self, reason: str) -> str:
        limits = self.limits
        if reason == OUT_OF_MEMORY:
            told = f"it asked for more than its limit of {size(limits.memory_bytes)} of memory"
            return f"{told}; it was seen to use {size(self.memory)}"
        if reason == DISK_FULL:
            told = f"it wanted to write more than its limit of {size(limits.disk_bytes)}"
            return f"{told}, or what the disk has; it was seen to use {size(self.disk)}"
        told = f"it asked for more than its limit of {limits.process_count} processes and threads"
        return f"{told}; it was seen to have {self.processes}"

    async def _until_memory(self, process: int) -> Breach:
        rest = LOOK_SECONDS
        while True:
            await asyncio.sleep(rest)
            began = time.monotonic()
            family = usage.family(process)
            count = max(0, usage.threads(family) - self.own_processes)
            self.count(count)
            if count > self.limits.process_count:
                return self._many(count)
            used = self._memory(family)
            self.memory = max(self.memory, used)
            if used > self.limits.memory_bytes:
                limit = f"its limit of {size(self.limits.memory_bytes)}"
                return Breach(OUT_OF_MEMORY, f"it used {size(used)} of memory, more than {limit}")
            near = used > self.limits.memory_bytes // 2
            if near and psutil.virtual_memory().available < RESERVE_BYTES:
                told = f"the machine has no memory left; the build used {size(used)}"
                return Breach(OUT_OF_MEMORY, told)
            took = time.monotonic() - began
            rest = max(CLOSE_SECONDS if near else LOOK_SECONDS, took * REST)

    async def _until_flooded(self) -> Breach:
        await self.flooded.wait()
        limit = f"its limit of {size(self.limits.log_bytes)}"
        return Breach(LOG_TOO_LARGE, f"it printed more than {limit}")

    def _many(self, count: int) -> Breach:
        limit = f"its limit of {self.limits.process_count}"
        told = f"it had {count} processes and threads, more than {limit}"
        return Breach(TOO_MANY_PROCESSES, told)

    def _memory(self, family: list[int]) -> int:
        """Measure memory, as exactly as needed."""
        shared = usage.shared_memory(reversed(family))
        rough = usage.resident(family) + shared
        return rough if rough <= self.limits.memory_bytes else usage.exact(family, shared)

    async def _until_disk(self, process: int) -> Breach:
        devices = await asyncio.to_thread(_devices, self.folders)
        while True:
            began = time.monotonic()
            used, hidden = await asyncio.to_thread(self._measure, process, devices)
            if used > self.limits.disk_bytes:
                limit = f"its limit of {size(self.limits.disk_bytes)}"
                return Breach(DISK_FULL, f"it wrote {size(used)}, more than {limit}")
            if hidden > self.limits.memory_bytes:
                told = f"it kept {size(hidden)} in files of memory, more than its limit of"
                return Breach(OUT_OF_MEMORY, f"{told} {size(self.limits.memory_bytes)}")
            free = psutil.disk_usage(str(self.folders[0])).free
            if free < RESERVE_BYTES and used > 0:
                return Breach(DISK_FULL, f"the disk is full; the build wrote {size(used)} of it")
            took = time.monotonic() - began
            await asyncio.sleep(max(DISK_SECONDS, took * REST))

    def _measure(self, process: int, devices: frozenset[int]) -> tuple[int, int]:
        hidden = usage.hidden(usage.family(process), devices)
        used = usage.tree_bytes(self.folders) - self.written + hidden.disk
        self.disk = max(self.disk, used)
        return used, hidden.memory


def _devices(folders: Sequence[Path]) -> frozenset[int]:
    return frozenset(folder.stat().st_dev for folder in folders)
