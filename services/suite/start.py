"""Starting an embedded suite: free ports, the client's configuration, the process itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from services.suite.children import Layout

START_SECONDS = 90.0
POLL_SECONDS = 0.02
# The supervisor starts processes while it asks for their health: a child of a fork would be broken
# by what gRPC does there.
ENVIRONMENT = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
MARK = "# Written by `modelyard up`; yours once you remove this line.\n"


class StartError(Exception):
    """The suite cannot be started; the message says what to do."""


def check_ports(layout: Layout) -> None:
    """Refuse to start on a port that is taken."""
    for port, option in ((layout.port, "--port"), (layout.inference_port, "--inference-port")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise StartError(
                    f"port {port} is taken; is a suite running already? {option} chooses another"
                ) from None


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_config(layout: Layout, path: Path) -> bool:
    """Tell the client where the suite is; a file that the user wrote is left alone."""
    if path.exists() and not path.read_text().startswith(MARK):
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(
        f'{MARK}server = "{layout.address}"\n'
        f'token_file = "{layout.admin_token}"\n'
        'project = "default"\n'
    )
    path.chmod(0o600)
    return True


def exec_suite(layout: Layout) -> NoReturn:
    """Become the suite's keeper; small, because it stays as long as the suite does."""
    command, environment = _command(layout), {**os.environ, **ENVIRONMENT}
    os.execve(command[0], command, environment)  # noqa: S606 - our own interpreter, a list


def start_suite(layout: Layout, *, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a suite beside this process and wait until its services answer.

    Raises:
        StartError: it ended or did not get ready in time.
    """
    layout.prepare()
    layout.ready.unlink(missing_ok=True)  # a suite that was killed has left it
    with (layout.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            _command(layout),
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_ready(process, layout)
    except BaseException:  # an interrupt too: whoever asked has nothing to stop it by
        process.terminate()
        process.wait()
        raise
    return process


def _wait_ready(process: subprocess.Popen[bytes], layout: Layout) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not layout.ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise StartError(f"the suite did not start; see {layout.logs}")
        time.sleep(POLL_SECONDS)


def _command(layout: Layout) -> list[str]:
    supervisor = (sys.executable, "-m", "services.suite.supervisor")
    places = (str(layout.data), str(layout.port), str(layout.inference_port))
    return [sys.executable, "-m", "services.suite.cage", *supervisor, *places]
