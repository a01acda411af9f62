"""A worker process: `python -m modelyard.serving.worker`; it loads the model and does jobs.

The server starts it and talks with it over the socket whose number it is given. It ends when the
server closes the socket or is gone, and by nothing else: signals are the server's to understand,
also when a terminal or systemd sends them to all.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from modelyard.serving import frames, logs
from modelyard.serving.engine import Engine
from modelyard.serving.jobs import Job, perform
from modelyard.serving.starting import LoadFailedError, Target, start_engine

_BUFFER = 256 * 1024


def main(arguments: list[str]) -> int:
    """Load, greet and work; return the exit code."""
    number, bundle, name, version, concurrency = arguments
    logs.configure()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    with socket.socket(fileno=int(number)) as server:
        try:
            engine = start_engine(Target(Path(bundle), name, version))
        except LoadFailedError as error:
            return error.code
        try:
            _Worker(engine, server, int(concurrency)).run()
        except OSError:  # the server is gone
            return 1
    return 0


class SupportsRead(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer only at the end."""
        ...


class _Worker:
    """Does the jobs that come, as many at once as it has threads."""

    def __init__(self, engine: Engine, server: socket.socket, concurrency: int) -> None:
        self._engine = engine
        self._server = server
        self._concurrency = concurrency
        self._sending = threading.Lock()

    def run(self) -> None:
        """Work until the server closes the socket."""
        self._send(frames.encode_greeting(self._engine.description))
        executor = ThreadPoolExecutor(self._concurrency, thread_name_prefix="predict")
        with self._server.makefile("rb", _BUFFER) as stream:
            while (received := _receive(stream)) is not None:
                if self._concurrency == 1:  # no need to change threads
                    self._do(*received)
                else:
                    executor.submit(self._do, *received)

    def _do(self, number: int, job: Job) -> None:
        self._send(frames.encode_outcome(number, perform(self._engine, job)))

    def _send(self, frame: tuple[bytes, bytes]) -> None:
        with self._sending:
            for part in frame:
                self._server.sendall(part)


def _receive(stream: SupportsRead) -> tuple[int, Job] | None:
    """Return the next job and its number; None when there will be none."""
    header = stream.read(frames.HEADER.size)
    if len(header) < frames.HEADER.size:
        return None
    head = frames.head_of(header)
    body = stream.read(head.length)
    return None if len(body) < head.length else (head.number, frames.decode_job(head, body))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # not sys.exit: a prediction must not keep the process alive
