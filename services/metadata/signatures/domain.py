"""Signatures as they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of a version; its bundle is kept beside it."""

    sha256: str
    key_hint: str
    creator: str
    create_time: datetime
