"""Verdicts on files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, Protocol


class Verdict(IntEnum):
    """What may be made of a file; the higher the worse."""

    ALLOWED = 1
    UNVERIFIED = 2
    UNSAFE = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What a file is, what may be made of it, and why."""

    format: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()


class Analyser(Protocol):
    """Recognises one family of formats."""

    def __call__(self, path: str, size: int, head: bytes, file: BinaryIO) -> Finding | None:
        """Return what a file is; None when it is of another family."""
        ...


def allowed(name: str) -> Finding:
    """Say that a format holds no code, and that the file is well-formed."""
    return Finding(name, Verdict.ALLOWED)


def unverified(name: str, *reasons: str) -> Finding:
    """Say that nobody can tell."""
    return Finding(name, Verdict.UNVERIFIED, reasons)


def unsafe(name: str, *reasons: str) -> Finding:
    """Say that loading it runs what it says."""
    return Finding(name, Verdict.UNSAFE, reasons)
