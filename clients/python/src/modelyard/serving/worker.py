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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from modelyard.serving import frames, logs
from modelyard.serving.batching import Batcher, Batching
from modelyard.serving.engine import Engine
from modelyard.serving.jobs import Job, perform, perform_all
from modelyard.serving.starting import LoadFailedError, Target, start_engine

_BUFFER = 256 * 1024

_Received = tuple[int, Job]


def main(arguments: list[str]) -> int:
    """Load, greet and work; return the exit code."""
    number, bundle, name, version, concurrency, size, delay = arguments
    logs.configure()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    with socket.socket(fileno=int(number)) as server:
        try:
            engine = start_engine(Target(Path(bundle), name, version))
        except LoadFailedError as error:
            return error.code
        try:
            batching = Batching(int(size), float(delay))
            _Worker(engine, server, int(concurrency), batching).run()
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

    def __init__(
        self, engine: Engine, server: socket.socket, concurrency: int, batching: Batching
    ) -> None:
        self._engine = engine
        self._server = server
        self._concurrency = concurrency
        self._batching = batching
        self._sending = threading.Lock()

    def run(self) -> None:
        """Work until the server closes the socket."""
        self._send(frames.encode_greeting(self._engine.description))
        begin: Callable[[_Received], object] = self._do
        if self._batching.is_on:
            begin = Batcher(self._do_all, self._batching, threads=self._concurrency).put
        elif self._concurrency > 1:  # one needs not change threads
            executor = ThreadPoolExecutor(self._concurrency, thread_name_prefix="predict")
            begin = lambda received: executor.submit(self._do, received)  # noqa: E731
        with self._server.makefile("rb", _BUFFER) as stream:
            while (received := _receive(stream)) is not None:
                begin(received)

    def _do_all(self, batch: list[_Received]) -> None:
        outcomes = perform_all(self._engine, [job for _, job in batch])
        for (number, _), outcome in zip(batch, outcomes, strict=True):
            self._send(frames.encode_outcome(number, outcome))

    def _do(self, received: _Received) -> None:
        number, job = received
        self._send(frames.encode_outcome(number, perform(self._engine, job)))

    def _send(self, frame: tuple[bytes, bytes]) -> None:
        with self._sending:
            for part in frame:
                self._server.sendall(part)


def _receive(stream: SupportsRead) -> _Received | None:
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
