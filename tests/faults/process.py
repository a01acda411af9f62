"""A process of the four services that is started many times over, to be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from services.__main__ import main
from tests.faults import launch

_SECONDS = 30.0
# Each is forked from one process that has all modules: they take longer to load than all else.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([launch.__name__])


class Process:
    """The services, by themselves or under a command that runs them."""

    def __init__(self, under: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command: subprocess.Popen[bytes] | None = None
        if under:
            with log.open("ab") as output:
                self._command = subprocess.Popen(
                    [*under, sys.executable, "-m", launch.__name__],
                    env=environment,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self.pid = self._command.pid
            return
        self._fork = _FORKS.Process(target=_run, args=(dict(environment), str(log)))
        self._fork.start()
        assert self._fork.pid is not None
        self.pid = self._fork.pid

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._fork.exitcode if self._command is None else self._command.poll()

    def ends(self) -> bool:
        """Say whether it ended, or is about to: who was killed is not gone at once."""
        if self._command is None:
            self._fork.join(_SECONDS)
        else:
            try:
                self._command.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                return False
        return self.poll() is not None

    def terminate(self) -> None:
        """Ask it to stop."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it, with what runs it, if it still runs."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.ends()


def _run(environment: dict[str, str], log: str) -> None:
    """Become the services, in a forked process."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    launch.prepare()
    main()
