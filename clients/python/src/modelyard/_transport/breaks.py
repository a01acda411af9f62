"""How often, and how long, what broke is begun again."""

from __future__ import annotations

import time

from modelyard._transport.calls import Pause
from modelyard.errors import ModelyardError, is_passing

ATTEMPTS = 12
"""How often in a row something may break without getting on: for 40 seconds, in which a killed
service is up again on a busy machine."""
LONGEST_PAUSE = 5.0
PATIENCE = 300.0
"""Seconds without getting on, however few attempts that were."""


class Breaks:
    """Counts how often in a row something broke without getting on.

    When `sending`, chunks that went missing meanwhile are a break, too: they are sent again.
    """

    def __init__(self, *, sending: bool = False) -> None:
        self._sending = sending
        self._failures = 0
        self._since = 0.0

    def after(self, error: ModelyardError, *, advanced: bool) -> Pause:
        """Return how long to wait before the next attempt, or raise the error."""
        now = time.monotonic()
        self._failures = 1 if advanced else self._failures + 1
        if self._failures == 1:
            self._since = now
        pause = max(min(0.2 * 2**self._failures, LONGEST_PAUSE), error.retry_delay or 0.0)
        passing = is_passing(error) or (self._sending and error.reason == "BYTES_MISSING")
        if not passing or self._failures >= ATTEMPTS or now + pause - self._since > PATIENCE:
            raise error
        return Pause(pause)
