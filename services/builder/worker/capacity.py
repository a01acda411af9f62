"""What a worker has for its builds, what each of them was given, and what is free."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import psutil
from modelyard.builder.v1 import build_pb2

from services.builder.worker.limits import Limits
from services.builder.worker.settings import WorkerSettings

USABLE = 0.8
"""Which part of the machine's memory and free disk builds may use."""
PROCESSES = 1_024
LEAST_SHARE = 0.25
"""Which part of an equal share must be free before another build is asked for."""
_CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")


class Capacity:
    """Hands out a worker's resources: to each build what it asks for, or an equal share."""

    def __init__(self, total: Limits, *, builds: int) -> None:
        """Share `total` among so many builds at a time."""
        self._total = total
        self._builds = builds
        self._given: list[Limits] = []

    @classmethod
    def of_machine(cls, settings: WorkerSettings) -> Capacity:
        """Find out what there is, as far as the settings do not say."""
        cores = tuple(sorted(os.sched_getaffinity(0)))
        total = Limits(
            cpu_cores=settings.cpu_cores or float(len(cores)),
            memory_bytes=settings.memory_bytes or int(_machine_memory() * USABLE),
            disk_bytes=settings.disk_bytes
            or int(psutil.disk_usage(str(settings.folder)).free * USABLE),
            process_count=settings.process_count or PROCESSES * settings.concurrency,
            cores=cores,
            log_bytes=settings.log_bytes,
        )
        return cls(total, builds=settings.concurrency)

    @property
    def total(self) -> build_pb2.Resources:
        """Return what there is in all."""
        return _resources(self._total)

    @property
    def free(self) -> build_pb2.Resources:
        """Return what no build was given."""
        return _resources(self._free())

    @property
    def has_room(self) -> bool:
        """Say whether enough is free to start a build that does not say what it needs."""
        free, total, least = self._free(), self._total, LEAST_SHARE / self._builds
        return (
            free.cpu_cores >= total.cpu_cores * least
            and free.memory_bytes >= total.memory_bytes * least
            and free.disk_bytes >= total.disk_bytes * least
            and free.process_count >= total.process_count * least
        )

    def give(self, wanted: build_pb2.Resources) -> Limits:
        """Give a build what it wants; where it does not say, an equal share or what is left."""
        free, total, builds = self._free(), self._total, self._builds
        cores = wanted.cpu_cores or min(free.cpu_cores, total.cpu_cores / builds)
        given = Limits(
            cpu_cores=cores,
            memory_bytes=wanted.memory_bytes
            or min(free.memory_bytes, total.memory_bytes // builds),
            disk_bytes=wanted.disk_bytes or min(free.disk_bytes, total.disk_bytes // builds),
            process_count=wanted.process_count
            or min(free.process_count, total.process_count // builds),
            # Whoever does not say may use what others leave idle.
            cores=self._cores(cores) if wanted.cpu_cores else (),
            log_bytes=total.log_bytes,
        )
        self._given.append(given)
        return given

    def take_back(self, given: Limits) -> None:
        """Take back what was given to a build that ended."""
        self._given.remove(given)

    def _free(self) -> Limits:
        total, given = self._total, self._given
        return Limits(
            cpu_cores=max(0.0, total.cpu_cores - sum(g.cpu_cores for g in given)),
            memory_bytes=max(0, total.memory_bytes - sum(g.memory_bytes for g in given)),
            disk_bytes=max(0, total.disk_bytes - sum(g.disk_bytes for g in given)),
            process_count=max(0, total.process_count - sum(g.process_count for g in given)),
        )

    def _cores(self, count: float) -> tuple[int, ...]:
        """Pick the cores that the fewest builds run on; none if a build may use them all."""
        wanted, there = max(1, math.ceil(count)), self._total.cores
        if wanted >= len(there):
            return ()
        users = Counter(core for given in self._given for core in given.cores)
        return tuple(sorted(sorted(there, key=lambda core: users[core])[:wanted]))


def _machine_memory() -> int:
    """Return the machine's memory, or its container's limit."""
    machine = int(psutil.virtual_memory().total)
    try:
        text = _CONTAINER_MEMORY.read_text().strip()
    except OSError:
        return machine
    return min(machine, int(text)) if text.isdecimal() else machine


def _resources(limits: Limits) -> build_pb2.Resources:
    return build_pb2.Resources(
        cpu_cores=limits.cpu_cores,
        memory_bytes=limits.memory_bytes,
        disk_bytes=limits.disk_bytes,
        process_count=limits.process_count,
    )
