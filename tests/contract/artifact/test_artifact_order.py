"""What is acknowledged is durable: the order of system calls, and what a full disk does."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from services.artifact.settings import ArtifactSettings
from tests.contract.artifact.stores import Storehouse, spawned
from tests.contract.artifact.yard import MIB, Content, noise, reason

_CALL = re.compile(r"^\d+\s+([\d.]+) (\w+)\((.*)\)\s+= 0 <([\d.]+)>$")


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One that succeeded, from when to when, by the clock that the test has too."""

    start: float
    end: float
    name: str
    arguments: str


def read_trace(path: Path) -> list[SystemCall]:
    """Return the calls of a trace in which none is cut in two by another thread's."""
    pending: dict[str, str] = {}
    calls = []
    for line in path.read_text().splitlines():
        thread = line.split(maxsplit=1)[0]
        if line.endswith("<unfinished ...>"):
            pending[thread] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        if "resumed>" in line:
            line = pending.pop(thread) + line.partition("resumed>")[2]  # noqa: PLW2901
        found = _CALL.match(line)
        if found:
            start, duration = float(found[1]), float(found[4])
            calls.append(SystemCall(start, start + duration, found[2], found[3]))
    return calls


@pytest.mark.parametrize(
    "count", [5, pytest.param(200, marks=pytest.mark.slow)], ids=["short", "long"]
)
async def test_order_of_system_calls(tmp_path: Path, count: int) -> None:
    settings = ArtifactSettings(data=str(tmp_path / "artifact"), scrub_bytes_per_second=0.0)
    trace = tmp_path / "trace"
    under = ["strace", "-f", "-y", "-ttt", "-T", "-o", str(trace)]
    publishes: list[tuple[float, float]] = []
    async with spawned(settings, under=[*under, "--trace=fsync,fdatasync,rename"]) as store:
        for index in range(count):
            start = time.time()
            await store.yard.write([noise(index, 10_000)])
            publishes.append((start, time.time()))
    calls = read_trace(trace)
    for start, answer in publishes:
        own = [call for call in calls if start <= call.start <= answer]
        [rename] = [call for call in own if call.name == "rename"]
        unfinished, target = re.findall(r'"([^"]+)"', rename.arguments)
        synced = [call for call in own if call.name in {"fsync", "fdatasync"}]
        [file] = [call for call in synced if f"<{unfinished}>" in call.arguments]
        [folder] = [call for call in synced if f"<{Path(target).parent}>" in call.arguments]
        commit = [call for call in synced if "artifact.db-wal>" in call.arguments][-1]
        assert file.end <= rename.start
        assert rename.end <= folder.start
        assert folder.end <= commit.start
        assert commit.end <= answer


async def test_full_disk_of_its_own(tmp_path: Path) -> None:
    """A file system of 24 MiB holds packs and database; somebody else fills it, and makes room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    settings = ArtifactSettings(data=str(disk / "artifact"), scrub_bytes_per_second=0.0)
    mounting = f'mount -t tmpfs -o size=24m tmpfs "{disk}" && exec "$@"'
    under = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounting, "sh"]
    async with spawned(settings, under=under) as store:
        tree = {"kept": Content(noise(1, MIB))}
        kept = await store.yard.push(tree)
        inside = Path(f"/proc/{store.process}/root{disk}")
        ballast = inside / "ballast"
        fill(ballast)
        for _ in range(2):
            await refused_for_space(lambda: store.yard.push({"more": Content(noise(2, 2 * MIB))}))
            assert await store.yard.pull(kept.name) == tree
        ballast.unlink()
        more = {"more": Content(noise(2, 2 * MIB))}
        assert await store.yard.pull((await store.yard.push(more)).name) == more
        assert not await store.house.verify(kept.name)
        await stays_consistent(store.house, inside / "artifact")


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            try:
                while file.write(bytes(size)) == size:
                    continue
            except OSError:
                continue


async def refused_for_space(push: Callable[[], Awaitable[object]]) -> None:
    while True:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await push()
        # grpc.aio's client loses the answer when a stream is refused while it writes.
        if caught.value.code() is not grpc.StatusCode.INTERNAL or caught.value.trailing_metadata():
            break
    code, why, metadata = reason(caught.value)
    assert (code, why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert metadata["limit"] == "disk"


async def stays_consistent(house: Storehouse, folder: Path) -> None:
    """What failed left nothing unfinished behind, and takes no room once it is swept."""
    assert not list((folder / "unfinished").iterdir())
    stored = sum(path.stat().st_size for path in (folder / "packs").glob("*/*"))
    assert (await house.usage()).needed_bytes == stored
