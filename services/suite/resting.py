"""How long a process whose disk failed goes on reading before it is started again.

At once the first time. Where the disk stays bad each start only ends in the same state, and keeps
those from reading who could: so it is tried ever less often.
"""

from __future__ import annotations

FIRST_SECONDS = 60.0
LONGEST_SECONDS = 600.0
WELL_SECONDS = 600.0
"""A disk that held for so long is taken for a good one that failed for the first time."""


class Rests:
    """The rests of one process, each as long as the failures before it ask for."""

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, served: float) -> float:
        """Return how many seconds to leave a process alone that failed after so many of service."""
        rest = 0.0 if served >= WELL_SECONDS else self._next
        self._next = min(max(2 * rest, FIRST_SECONDS), LONGEST_SECONDS)
        return rest
