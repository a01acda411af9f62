"""The chain of the audit trail: how entries are linked, and whether they still are.

A service keeps its entries in a chain, so that one that was changed, removed, put in or
moved is found by whoever reads them all; that the newest were cut off is found by whoever
kept an earlier head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.common.v1.audit_pb2 import AuditEntry

SERVICES = ("metadata", "artifact", "builder", "deployer")
FIRST = bytes(32)
"""What the first entry is linked to."""


def link(previous: bytes, entry: Mapping[str, str | int]) -> bytes:
    """Return an entry's hash: of the hash before it and the entry as canonical JSON.

    Args:
        previous: the hash before it; `FIRST` for the first entry.
        entry: its fields but `hash`, by name, `time` as microseconds since 1970.
    """
    # For strings and small integers under ASCII names this is what RFC 8785 asks.
    text = json.dumps(dict(entry), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(previous + text.encode()).digest()


def fields_of(entry: AuditEntry) -> dict[str, str | int]:
    """Return what an entry's hash is made of."""
    return {
        "service": entry.service,
        "sequence": entry.sequence,
        "time": entry.time.ToMicroseconds(),
        "actor": entry.actor,
        "delegation": entry.delegation,
        "method": entry.method,
        "resource": entry.resource,
        "request_id": entry.request_id,
        "outcome": entry.outcome,
        "count": entry.count,
    }


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain ends, or ended when it was looked at."""

    sequence: int = 0
    hash: bytes = FIRST


@dataclass(slots=True)
class Chain:
    """A service's chain, as far as its entries were read; `problems` says what is wrong."""

    service: str
    known: Head = field(default_factory=Head)
    """An earlier head that the chain must still hold."""
    head: Head = field(default_factory=Head)
    problems: list[str] = field(default_factory=list)

    def add(self, fields: Mapping[str, str | int], digest: bytes) -> None:
        """Take the next entry, oldest first; what is wrong with it is a problem."""
        sequence, wanted = int(fields["sequence"]), self.head.sequence + 1
        if fields["service"] != self.service:
            self.problems.append(f"entry {sequence} is of {fields['service'] or 'no service'}")
        if sequence != wanted:
            self.problems.append(f"entry {wanted} is missing: {sequence} follows")
        if link(self.head.hash, fields) != digest:
            self.problems.append(f"entry {sequence} was changed, or what was before it")
        self.head = Head(sequence, digest)
        if sequence == self.known.sequence and digest != self.known.hash:
            self.problems.append(f"entry {sequence} is not the one that was known: written anew")

    def end(self, head: Head) -> None:
        """Take the end: where the service says that the chain ends."""
        if self.head.sequence < self.known.sequence:
            self.problems.append(
                f"cut: it ends at {self.head.sequence}, {self.known.sequence} was known"
            )
        if self.head.sequence < head.sequence:
            self.problems.append(
                f"cut: it ends at {self.head.sequence}, its head is {head.sequence}"
            )
        elif head.sequence == self.head.sequence and head.hash != self.head.hash:
            self.problems.append(f"its head is not entry {head.sequence}")
