"""Chores: what is done again and again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from services.common.errors import ServiceError

logger = logging.getLogger(__name__)


async def repeat(chore: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Do a chore, rest, and again until cancelled; a failure is logged and tried again."""
    while True:
        try:
            await chore()
        except ServiceError as error:
            logger.warning("chore put off", extra={"reason": error.reason.value})
        except Exception:  # a chore must not end because one build is odd
            logger.exception("chore failed")
        await asyncio.sleep(seconds)
