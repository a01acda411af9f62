"""Killed at named points, and at each rename and flush, of a fixed script.

What is kept is checked as it lies; then the services are started again, what was
acknowledged is looked for, and the same script is run with the same request ids.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.installation import OnDisk, OnServers
from tests.faults.points import POINTS
from tests.faults.script import Script

CALLS = ("rename", "fsync", "fdatasync")
HITS = int(os.environ.get("MODELYARD_CRASH_HITS", "3"))
MOST = int(os.environ.get("MODELYARD_CRASH_POINTS", "12"))
DISK_ONLY = {"artifact.pack.synced", "artifact.pack.renamed"}


@pytest.fixture(params=["disk", "servers"], scope="module")
def places(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> OnDisk | OnServers:
    """Installations of either kind."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "disk":
        return OnDisk(folder)
    servers = [request.getfixturevalue(name) for name in ("postgres_server", "s3_server")]
    return OnServers(folder, *servers)


class Count:
    """What came of the kills."""

    def __init__(self) -> None:
        self.killed = self.acknowledged = 0

    def one(
        self,
        places: OnDisk | OnServers,
        folder: Path,
        tree: Path,
        *under: str,
        bug: str = "",
        **variables: str,
    ) -> bool:
        """Kill the services once and see what is left; False when they were not killed."""
        with places.fresh(folder, SEEDED_BUG=bug) as it:
            script, begun = Script(it, tree), folder / "begun"
            with it.services(*under, CRASH_SINCE=str(begun), **variables) as process:
                ended = script.run(process, begun)
                died = not ended and process.ends()
            assert ended or died, (script.problem, it.log())
            assert it.check() == []
            self.killed += died
            self.acknowledged += (len(script.acknowledged) + len(script.batches)) * died
            with it.services() as process:
                assert it.comes_up(process), it.log()
                script.confirm()
                assert script.run(process), (script.problem, it.log())
                script.results()
            assert it.check() == []
        return died


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_named_point(
    point: str, places: OnDisk | OnServers, tmp_path: Path, tree: Path
) -> None:
    if isinstance(places, OnServers) and point in DISK_ONLY:
        return
    count = Count()
    for hit in range(1, HITS + 1):
        folder = tmp_path / f"{point}-{hit}"
        if not count.one(places, folder, tree, CRASH_POINT=f"{point}:{hit}"):
            break
    print(f"{point}: killed {count.killed}, {count.acknowledged} acknowledged before, 0 lost")
    assert count.killed >= 1


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_each_call(call: str, on_disk: OnDisk, tmp_path: Path, tree: Path) -> None:
    count = Count()
    for number in range(1, MOST + 1):
        inject = f"inject={call}:signal=KILL:when={number}"
        strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        if not count.one(on_disk, tmp_path / f"{call}-{number}", tree, *strace):
            break
    print(f"{call}: killed {count.killed}, {count.acknowledged} acknowledged before, 0 lost")
    assert count.killed >= 1
