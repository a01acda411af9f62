"""Programs of the worker's own that it can end at once: an order in JSON, an answer in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping

from services.common.processes.lifelines import dies_with_us


async def ask(program: str, order: Mapping[str, object]) -> dict[str, str]:
    """Run a module that reads its order from standard input; cancelled, it is killed first.

    No part of an order is in an argument, where others could read it. What broke off before
    it answered gave an empty answer.
    """
    process = await asyncio.create_subprocess_exec(
        *(*dies_with_us(), sys.executable, "-m", program),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,  # what a library says there may hold anything
        start_new_session=True,
    )
    try:
        out, _ = await process.communicate(json.dumps(order).encode())
        return dict(json.loads(out or b"{}"))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
