"""Times as people give them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from modelyard.errors import InvalidArgumentError

_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def since_moment(text: str) -> datetime:
    """Read `10m`, `2h`, `1d` (ago), or a time in ISO 8601, UTC unless it says otherwise."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        message = f"{text!r} is no time; such as 10m, 2h, 1d, or 2026-05-01T12:00"
        raise InvalidArgumentError(message, reason="INVALID_FIELD") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
