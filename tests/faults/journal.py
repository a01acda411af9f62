"""What a client meant to write and what it was told of it, on the disk before it goes on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Write:
    """One write that was meant."""

    kind: str
    id: str
    subject: str
    """What it is about: a model, a run, an alias."""
    value: str
    """What it sets there."""
    patient: bool
    """Whether its client repeats it until it is acknowledged."""
    name: str | None = None
    """What was answered; None: nothing was, and it may have happened or not."""


class Journal:
    """One client's journal: each line is flushed before its call, and after its answer."""

    def __init__(self, path: Path, *, patient: bool) -> None:
        self._file = path.open("ab", buffering=0)
        self._patient = patient

    def intend(self, kind: str, id: str, subject: str, value: str) -> None:  # noqa: A002
        """Note what is about to be asked for."""
        self._append([kind, id, subject, value, self._patient])

    def acknowledge(self, id: str, name: str) -> None:  # noqa: A002
        """Note what was answered."""
        self._append([id, name])

    def _append(self, line: list[str | bool]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        os.fsync(self._file.fileno())


def read(folder: Path) -> list[Write]:
    """Read all journals of a folder."""
    writes: dict[str, Write] = {}
    for path in folder.glob("*.journal"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if len(record) == 2:
                writes[record[0]].name = record[1]
            else:
                writes[record[1]] = Write(*record)
    return list(writes.values())
