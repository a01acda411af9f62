"""What a failed flush means for a process: nobody should call it until it was started again.

After the disk refused to flush, it is not known what it holds of what was written before, and a
flush that succeeds later says nothing of it. What was acknowledged was flushed, and is read on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
_failed = threading.Event()


def note_disk_failure() -> None:
    """Take note that the disk failed; from any thread."""
    _failed.set()


async def stop_serving_after(set_serving: Callable[..., Awaitable[None]]) -> None:
    """Wait for a failure of the disk, then say by health that this process does not serve."""
    while not _failed.is_set():  # noqa: ASYNC110 - threads of all kinds set it
        await asyncio.sleep(LOOK_SECONDS)
    logger.critical("the disk failed: not serving until this process is started again")
    await set_serving(serving=False)
