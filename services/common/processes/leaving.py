"""Leaving in time: the end of a process that was told to stop, whatever hangs.

A thread that waits for a database, for S3 or for a collector which does not answer cannot be
interrupted, and Python waits for it. By then calls are answered and what was acknowledged is
durable: nothing is lost that a killed process would not lose, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 3.0
"""How long a process may take to clear up once there is nothing more to answer."""


def on_stop(stop: Callable[[], object], *, within: float) -> None:
    """Be told to stop by SIGTERM and SIGINT; so many seconds later nothing is waited for."""

    def take() -> None:
        leave_within(within)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, take)


def leave_within(seconds: float, *, status: int = 0) -> None:
    """End this process in so many seconds unless it has ended by itself; the soonest counts."""
    timer = threading.Timer(seconds, _leave, [status])
    timer.daemon = True
    timer.start()


def _leave(status: int) -> None:
    threads = sorted(thread.name for thread in threading.enumerate())
    logger.warning("left before all had ended", extra={"threads": threads})
    os._exit(status)
