"""With which failures, and for how long, a worker tries again what is safe to repeat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from modelyard.errors import ModelyardError

from services.common.errors import Reason, ServiceError, retry_after

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
MAX_BUGS = 5

T = TypeVar("T")


class Patience:
    """With which failures, and how long, it makes sense to try again."""

    def __init__(self) -> None:
        self.forgive()

    def forgive(self) -> None:
        """Begin anew: something went well."""
        self._delay, self._bugs = FIRST_DELAY, 0

    async def bear(self, error: ServiceError | ModelyardError) -> None:
        """Wait before the next try, for as long as the service says if it does.

        Raises:
            ServiceError, ModelyardError: the error itself, when no try would mend it.
        """
        is_bug = error.reason == Reason.INTERNAL
        self._bugs += is_bug
        told = 0.0 if is_bug else retry_after(error)
        if self._bugs > MAX_BUGS or told is None:
            raise error
        logger.warning("no answer yet", extra={"reason": str(error.reason)})
        await asyncio.sleep(max(self._delay, told))
        self._delay = min(self._delay * 2, LONGEST_DELAY)


async def persist(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until there is an answer, however long the suite is away or has too much to do.

    Raises:
        ServiceError, ModelyardError: what no later try would mend.
    """
    patience = Patience()
    while True:
        try:
            return await attempt()
        except (ServiceError, ModelyardError) as error:
            await patience.bear(error)
