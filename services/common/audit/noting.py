"""What the call in progress is to leave in the audit trail, for whatever it writes to find."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from services.common.audit.entries import OK, Entry
from services.common.names import ResourceName

Describe = Callable[[str, str], Entry]
"""Makes a call's entry, of what was made, if that is known, and of its outcome."""


class Note:
    """A call's entry, to be written with the first of its writes that succeeds."""

    __slots__ = ("_describe", "taken")

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self.taken = False

    def entry(self, answer: object) -> Entry:
        """Return the entry of a call whose write has this answer."""
        name = getattr(answer, "name", None)
        return self._describe(str(name) if isinstance(name, ResourceName) else "", OK)

    def give_back(self) -> None:
        """Say that the write that took it failed."""
        self.taken = False


_NOTE: ContextVar[Note | None] = ContextVar("modelyard_audit_note", default=None)


def leave_note(note: Note | None) -> None:
    """Have the first write of this task record the call."""
    _NOTE.set(note)


def take_note() -> Note | None:
    """Return the note for a write to record; None outside of calls, and once it is taken."""
    note = _NOTE.get()
    if note is None or note.taken:
        return None
    note.taken = True
    return note
