"""Each of twelve sown bugs is found by a suite that is there anyway."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.bugs import BUGS
from tests.faults.flush_order import flushed_out_of_order, publish_traced
from tests.faults.installation import OnDisk
from tests.faults.test_crash_points import Count

MOST_FAULTS = 12
# What a bug lets live on ends with the test that found it.
ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
HANGS_SECONDS = 90
KILLED_AT = {
    "answer before commit": "metadata.commit.before",
    "version before bytes": "metadata.version.reserved",
    "request ids not unique": "metadata.commit.after",
    "events outside the transaction": "metadata.commit.after",
    "weights before journal": "deployer.weights.saved",
}
TRACED = ("no flush of files", "no flush of folders")
_SILENT = (
    "tests/contract/builder/test_leases.py"
    "::test_a_silent_worker_loses_the_build_and_can_do_nothing_more"
)
FOUND_BY = {
    "done when taken": _SILENT,
    "sweep without leases": "tests/contract/artifact/test_artifact_garbage_race.py",
    "lease without fence": _SILENT,
    "lines acknowledged over a gap": (
        "tests/contract/builder/test_events.py::test_duplicates_change_nothing_and_gaps_are_refused"
    ),
    "cancel kills only the child": (
        "tests/unit/builder/test_sandbox.py::test_a_cancelled_command_takes_everything_along"
    ),
}


def test_there_is_a_suite_for_each_bug() -> None:
    assert {*KILLED_AT, *TRACED, *FOUND_BY} == {*BUGS}
    assert len(BUGS) == 12


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", KILLED_AT)
def test_found_by_crash_points(bug: str, on_disk: OnDisk, tmp_path: Path, tree: Path) -> None:
    found, hit = "", 0
    while not found and hit < MOST_FAULTS:
        hit += 1
        point = f"{KILLED_AT[bug]}:{hit}"
        try:
            Count().one(on_disk, tmp_path / str(hit), tree, bug=bug, CRASH_POINT=point)
        except AssertionError as problem:
            found = str(problem).splitlines()[0]
    print(f"{bug}: {KILLED_AT[bug]}, kill {hit}: {found}")
    assert found, f"{bug} was not found in {MOST_FAULTS} kills"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", TRACED)
def test_found_by_the_order_of_flushes(bug: str, on_disk: OnDisk, tmp_path: Path) -> None:
    with on_disk.fresh(tmp_path / "traced", SEEDED_BUG=bug) as it:
        problems = flushed_out_of_order(publish_traced(it, tmp_path, 3), it, 3)
    print(f"{bug}: {len(problems)} of 3 publishes: {problems[:1]}")
    assert len(problems) >= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", FOUND_BY)
def test_found_by_a_test(bug: str) -> None:
    sound = _run(FOUND_BY[bug])
    assert sound.returncode == 0, sound.stdout  # without the bug it finds nothing, and ends
    ended = _run(FOUND_BY[bug], SEEDED_BUG=bug)
    found = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED ", "E  "))]
    print(f"{bug}: {found[:3] or 'it hangs'}")
    assert ended.returncode == 1, ended.stdout
    assert found or "Timeout" in ended.stdout + ended.stderr, ended.stdout


def _run(test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test in a process of its own, which is ended when it hangs."""
    command = (sys.executable, "-m", "pytest", "-n", "0", "-x", "-p", "tests.faults.sowing")
    ends = (f"--timeout={HANGS_SECONDS}", "-o", "timeout_method=thread")
    return subprocess.run(
        [*ALONE, *command, *ends, test],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
