"""What a model server may use: cores by binding, memory by watching it.

A server with a limit of cores is bound to as many of them, rounded up, and libraries are told how
many threads are theirs. Memory is measured from outside several times a second, over all its
processes; what one process may ask for is bounded by the kernel as well.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from dataclasses import dataclass
from typing import Self

from services.common.processes import usage
from services.common.processes.limits import bound_to, limited_to, size, thread_variables
from services.deployer.rollouts.plans import ServingSpec

LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Resources:
    """The limits of one model server; 0: none."""

    cores: int
    memory_bytes: int
    workers: int

    @classmethod
    def of(cls, serving: ServingSpec) -> Self:
        """Take them from how a version is served."""
        cores = min(math.ceil(serving.cpu_cores), len(os.sched_getaffinity(0)))
        return cls(cores, serving.memory_bytes, max(1, serving.worker_count))

    def command(self) -> list[str]:
        """Return the command that starts a program within them."""
        mine = sorted(os.sched_getaffinity(0))
        # Any of them: what else runs where is not known.
        chosen = sorted(random.sample(mine, self.cores)) if self.cores < len(mine) else []
        limited = limited_to(self.memory_bytes) if self.memory_bytes else []
        return [*bound_to(chosen), *limited]

    def variables(self) -> dict[str, str]:
        """Return what tells libraries how many threads to use in each worker."""
        if not self.cores and self.workers == 1:
            return {}
        cores = self.cores or len(os.sched_getaffinity(0))
        return thread_variables(max(1, cores // self.workers))

    async def overuse(self, process: int) -> str:
        """Wait until a process and its descendants use too much memory, and say so."""
        if not self.memory_bytes:
            await asyncio.Event().wait()  # for ever
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            family = [process, *usage.family(process)]
            if usage.resident(family) <= self.memory_bytes:
                continue
            used = await asyncio.to_thread(usage.exact, family, 0)
            if used > self.memory_bytes:
                limit = size(self.memory_bytes)
                return f"it used {size(used)} of memory, more than its limit of {limit}"
