"""A worker process as the server sees it: what it has in hand, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from itertools import count
from typing import Self

from modelyard.serving import frames
from modelyard.serving.batching import Batching
from modelyard.serving.domain import Description, Refusal, ServingError
from modelyard.serving.gate import Ticket
from modelyard.serving.starting import Target

logger = logging.getLogger(__name__)

_BUFFER = 1024 * 1024


class WorkerProcess:
    """A started worker."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._in_hand: dict[int, Ticket] = {}
        self._numbers = count(1)

    @classmethod
    async def start(cls, target: Target, *, concurrency: int, batching: Batching) -> Self:
        """Start one, which begins to load."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-B", "-m", "modelyard.serving.worker"]
            command += [str(theirs.fileno()), str(target.bundle), target.name, target.version]
            process = await asyncio.create_subprocess_exec(
                *command,
                *(str(concurrency), str(batching.max_size), str(batching.max_delay)),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
        return cls(process, *await asyncio.open_unix_connection(sock=ours, limit=_BUFFER))

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def busy(self) -> int:
        """Return how many jobs it has in hand."""
        return len(self._in_hand)

    async def greeting(self) -> Description | None:
        """Wait until it has loaded; None: it ended instead."""
        try:
            head = frames.head_of(await self._reader.readexactly(frames.HEADER.size))
            return frames.decode_greeting(await self._reader.readexactly(head.length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def send(self, ticket: Ticket) -> None:
        """Give it a job."""
        number = next(self._numbers) & 0xFFFFFFFF
        self._in_hand[number] = ticket
        for part in frames.encode_job(number, ticket.job):
            self._writer.write(part)

    async def next_finished(self) -> bool:
        """Wait until a job has ended; False: the worker ended, and its jobs with it."""
        try:
            head = frames.head_of(await self._reader.readexactly(frames.HEADER.size))
            body = await self._reader.readexactly(head.length)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lose()
            return False
        self._in_hand.pop(head.number).finish(frames.decode_outcome(head, body))
        return True

    async def wait(self) -> int:
        """Wait until the process has ended and return its exit code."""
        return await self._process.wait()

    def close(self) -> None:
        """Tell it that there will be no more jobs; it ends."""
        self._writer.close()

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _lose(self) -> None:
        for ticket in self._in_hand.values():
            ticket.finish(ServingError(Refusal.FAILED, "the model failed to predict"))
        self._in_hand.clear()
