"""A child process of the agent: its own session, its death with the agent, its last words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Self

from services.common.processes.lifelines import dies_with_us

_LAST_WORDS_SECONDS = 1.0
_TAIL_LINES = 500
_MAX_LINE_BYTES = 16 * 1024
_MAX_LOG_BYTES = 4 * 1024 * 1024


class Child:
    """A running program whose output is kept in a bounded log file and in memory."""

    def __init__(self, process: asyncio.subprocess.Process, output: int, log: Path) -> None:
        self._process = process
        self._output = output
        self._log = log
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._pump = asyncio.create_task(self._keep_output())

    @classmethod
    async def start(
        cls, arguments: Sequence[str], *, folder: Path, log: Path, environment: Mapping[str, str]
    ) -> Self:
        """Start a program in `folder`; its output goes to `log` (and `log`.old, 4 MiB each)."""
        # A pipe of our own: asyncio's process has not ended before the last holder of its pipe has,
        # and that may be something which the program started and detached.
        output, held = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *dies_with_us(),
                *arguments,
                cwd=folder,
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=held,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(held)
        return cls(process, output, log)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended and its last words are kept; return how it ended."""
        code = await self._process.wait()
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await asyncio.shield(self._pump)
        return code

    def tail(self, count: int) -> list[str]:
        """Return its last lines."""
        return list(self._lines)[-count:]

    async def stop(self, grace: float) -> None:
        """Ask it to end, and make it end after `grace` seconds."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:  # also when cancelled: nothing may be left running
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """Kill it and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _keep_output(self) -> None:
        rest = b""
        output, pipe = await _reading(self._output)
        with contextlib.closing(pipe), _BoundedLog(self._log) as log:
            while chunk := await output.read(64 * 1024):
                with contextlib.suppress(OSError, ValueError):  # a full disk ends the log only
                    log.write(chunk)
                *lines, rest = (rest + chunk).split(b"\n")
                self._lines.extend(_text(line) for line in lines)
                rest = rest[:_MAX_LINE_BYTES]
        if rest:
            self._lines.append(_text(rest))


async def _reading(pipe: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: protocol, FileIO(pipe))
    return reader, transport


class _BoundedLog:
    """A log file that starts anew when it is full and keeps the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, chunk: bytes) -> None:
        """Append, after starting anew if the file is full."""
        if self._file.tell() + len(chunk) > _MAX_LOG_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.old"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(chunk)


def _text(line: bytes) -> str:
    return line[:_MAX_LINE_BYTES].decode(errors="replace").rstrip("\r")
