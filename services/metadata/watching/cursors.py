"""Where watches stand: cursors of a project's ledger, and lists that say where to begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from services.common.listing.pagination import decode_cursor, encode_cursor
from services.common.sql.database import Transaction
from services.common.sql.outbox import last_sequence
from services.metadata.changes import topic
from services.metadata.listing import Listing, Page

T = TypeVar("T")


class Stream(StrEnum):
    """What a watch follows."""

    MODELS = "models"
    RUNS = "runs"


def cursor_at(stream: Stream, project: str, sequence: int) -> str:
    """Return the cursor that goes on after a change of a project's ledger."""
    return encode_cursor(_scope(stream, project), (sequence,))


def sequence_of(cursor: str, stream: Stream, project: str) -> int | None:
    """Return after which change a cursor goes on, or None for the empty one.

    Raises:
        ServiceError: INVALID_CURSOR when garbled, or of another project or stream.
    """
    key = decode_cursor(cursor, _scope(stream, project), tuple[int])
    return None if key is None else key[0]


def watchable(
    tx: Transaction, stream: Stream, project: str, listing: Listing, read: Callable[[], Page[T]]
) -> Page[T]:
    """Read a page that says from where to watch, so that no change is missed.

    The ledger is asked before the rows: what a page does not show yet comes after
    its cursor. Only the first page has one; the others leave it empty.
    """
    if listing.token:
        return read()
    sequence = last_sequence(tx.connection, topic(project))
    return replace(read(), watch_cursor=cursor_at(stream, project, sequence))


def _scope(stream: Stream, project: str) -> str:
    return f"metadata\n{project}\n{stream}"
