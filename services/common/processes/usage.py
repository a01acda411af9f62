"""What a program's processes use: measured from outside, as nothing inside can change it.

Memory is what the processes hold themselves, each shared page divided among those that share
it, and the files that only memory holds: `/dev/shm` and nameless ones. Disk is what lies in the
folders that they may write to, and files that are deleted but still open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_KIB = 1024
_BLOCK = 512
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at, never written to
_THREADS_FIELD = 17
"""Of /proc/…/stat, counted after the program's name."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """The bytes of files without a name that are still open."""

    memory: int = 0
    disk: int = 0


def family(process: int) -> list[int]:
    """Return a process's descendants, those that detached themselves in its namespace too."""
    found, waiting = list[int](), [process]
    while waiting:
        for child in _children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def is_first(process: int) -> bool:
    """Say whether a process is the first of a PID namespace, with which all others end."""
    for line in _lines(process, "status"):
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def resident(processes: Iterable[int]) -> int:
    """Return how much memory processes hold, shared pages counted for each: never too little."""
    return sum(_resident(process) for process in processes)


def exact(processes: Iterable[int], shared: int) -> int:
    """Return how much memory processes hold that cannot be read again from a file.

    Args:
        processes: which.
        shared: how much lies in their `/dev/shm`, mapped or not.
    """
    own = mapped = 0
    for process in processes:
        fields = _proportional(process)
        own += fields.get("Pss_Anon", _resident(process))
        mapped += fields.get("Pss_Shmem", 0)
    return own + max(mapped, shared)


def shared_memory(processes: Iterable[int]) -> int:
    """Return what lies in the `/dev/shm` of the namespace of processes.

    What lies in the machine's own is not theirs: they see it until their namespace is made.
    """
    for process in processes:
        folder = f"/proc/{process}/root{_SHARED_MEMORY}"
        try:
            found, is_own = os.statvfs(folder), _device(folder) != _device(_SHARED_MEMORY)
        except OSError:
            continue
        return (found.f_blocks - found.f_bfree) * found.f_frsize if is_own else 0
    return 0


def threads(processes: Iterable[int]) -> int:
    """Return how many threads processes have; each has one at least."""
    return sum(_threads(process) for process in processes)


def hidden(processes: Iterable[int], disks: frozenset[int]) -> Hidden:
    """Return what open files without a name hold, on disk if on one of these devices."""
    sizes: dict[tuple[int, int], int] = {}
    for process in processes:
        for found in _open_files(process):
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                sizes[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
    disk = sum(size for (device, _), size in sizes.items() if device in disks)
    return Hidden(sum(sizes.values()) - disk, disk)


def tree_bytes(paths: Iterable[Path]) -> int:
    """Return how much of the disk files and folders take; what vanishes counts nothing."""
    sizes: dict[tuple[int, int], int] = {}
    waiting = list[str]()
    for path in paths:
        found = path.lstat()
        sizes[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
        if stat.S_ISDIR(found.st_mode):
            waiting.append(str(path))
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
        except OSError:
            continue
    return sum(sizes.values())


def kernel_kills() -> int:
    """Return how many processes the kernel has ended on this machine for want of memory."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev  # noqa: PTH116 - hot
    except OSError:
        return None


def _children(process: int) -> list[int]:
    found = list[int]()
    try:
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 - hot
            with open(f"/proc/{process}/task/{thread}/children") as file:  # noqa: PTH123 - hot
                found += map(int, file.read().split())
    except OSError:
        pass  # it ended meanwhile
    return found


def _resident(process: int) -> int:
    text = _text(process, "statm").split()
    return int(text[1]) * _PAGE if text else 0


def _proportional(process: int) -> dict[str, int]:
    """Return a process's memory by kind, each shared page divided among those that share it."""
    lines = [line.split() for line in _lines(process, "smaps_rollup")]
    return {line[0][:-1]: int(line[1]) * _KIB for line in lines if line[0].startswith("Pss_")}


def _threads(process: int) -> int:
    fields = _text(process, "stat").rpartition(")")[2].split()
    return int(fields[_THREADS_FIELD]) if fields else 0


def _open_files(process: int) -> Iterator[os.stat_result]:
    folder = f"/proc/{process}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208 - hot
    except OSError:
        return
    for name in names:
        try:
            yield os.stat(f"{folder}/{name}")  # noqa: PTH116 - hot
        except OSError:
            continue


def _lines(process: int, name: str) -> list[str]:
    return _text(process, name).splitlines()


def _text(process: int, name: str) -> str:
    try:
        with open(f"/proc/{process}/{name}") as file:  # noqa: PTH123 - read many times a second
            return file.read()
    except OSError:
        return ""
