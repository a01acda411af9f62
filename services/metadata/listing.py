"""What a List call asks for and gets, whatever it lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listing:
    """Which page of a list is wanted; `filter` and `order` as the caller wrote them."""

    size: int
    token: str = ""
    filter: str = ""
    order: str = ""
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; `next_token` is empty on the last.

    `watch_cursor` says where to begin watching, of what can be watched.
    """

    items: tuple[T, ...]
    next_token: str
    watch_cursor: str = ""
