"""Starting the sender process; kept apart so that a trainer need not import grpc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from modelyard.tracking.spool import SENDER_LOG


def start_sender(directory: Path) -> subprocess.Popen[bytes]:
    """Start a sender for a spool; it outlives this process and its terminal."""
    with (directory / SENDER_LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "modelyard.tracking.sender", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
