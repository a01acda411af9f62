"""A process that was told to end does, though something in it hangs."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from services.common import logs
from services.common.processes.leaving import leave_within
logs.configure("INFO")
if "hang" in sys.argv:
    ThreadPoolExecutor(thread_name_prefix="asks").submit(threading.Event().wait)
leave_within(60)
leave_within(0.1 if "hang" in sys.argv else 60, status=int(sys.argv[1]))
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_thread_that_hangs_is_left(status: int) -> None:
    began = time.monotonic()
    done = _run(str(status), "hang")
    assert time.monotonic() - began < 30
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (done.returncode, told["message"]) == (status, "left before all had ended")
    assert "asks_0" in told["threads"]


def test_who_ends_by_itself_is_not_held_up() -> None:
    began = time.monotonic()
    done = _run("1")
    assert time.monotonic() - began < 30
    assert (done.returncode, done.stderr) == (0, "")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
