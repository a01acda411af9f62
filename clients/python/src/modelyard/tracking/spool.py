"""The spool: a folder per run, in which logging only ever appends to one file.

Layout of `MODELYARD_SPOOL_DIR` (default `~/.local/state/modelyard/spool`, mode 0700):

    <run id>/run.json      whose run it is and where it goes (mode 0600)
    <run id>/data.jsonl    one JSON line a record; see `records`
    <run id>/dropped       one byte for every point that was dropped
    <run id>/position      how far the server acknowledged data.jsonl, in bytes
    <run id>/finish.json   how the run ended, written after its last record
    <run id>/captured      there once the environment and the code were looked at
    <run id>/refused       why the server will never take it; kept for a person to look at
    <run id>/problem       why the sender does not get on at present
    <run id>/trainer.lock  locked by the trainer while it lives
    <run id>/sender.lock   locked by the one sender that works on it
    <run id>/sender.log    what the sender had to say

Every record is one write to a file opened with O_APPEND, so that threads, forked children and
kill -9 neither lose nor tear what was written before.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

DATA_FILE = "data.jsonl"
FACTS_FILE = "run.json"
DROPPED_FILE = "dropped"
POSITION_FILE = "position"
TRAINER_LOCK = "trainer.lock"
SENDER_LOCK = "sender.lock"
SENDER_LOG = "sender.log"
REFUSED_FILE = "refused"
PROBLEM_FILE = "problem"
CAPTURED_FILE = "captured"
FINISH_FILE = "finish.json"
MAX_MESSAGE = 4_000
DEFAULT_LIMIT = 1 << 30
_LOOK_EVERY = 64 * 1024


class EndState(StrEnum):
    """How a run can end, as `modelyard.metadata.v1.RunState` says it."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Finish:
    """How a run ended; a reason only when it FAILED."""

    state: EndState
    reason: str = ""
    message: str = ""


def spool_root(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder that holds every run's spool, whether or not it exists."""
    env = os.environ if environ is None else environ
    if named := env.get("MODELYARD_SPOOL_DIR"):
        return Path(named).expanduser().absolute()
    state = env.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "modelyard" / "spool"


def spool_limit(environ: Mapping[str, str] | None = None) -> int:
    """Return how many bytes a spool may take, from MODELYARD_SPOOL_LIMIT."""
    env = os.environ if environ is None else environ
    text = env.get("MODELYARD_SPOOL_LIMIT", "")
    if not text:
        return DEFAULT_LIMIT
    if not text.isdigit():
        raise ValueError("MODELYARD_SPOOL_LIMIT must be a number of bytes")
    return int(text)


def create_spool(root: Path, run_id: str, facts: Mapping[str, Any]) -> Path:
    """Make a run's spool and return its folder; only its owner can read it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = root / run_id
    directory.mkdir(mode=0o700)
    (directory / DATA_FILE).touch(mode=0o600)
    write_private(directory / FACTS_FILE, json.dumps(dict(facts), indent=1))
    return directory


def write_private(path: Path, text: str) -> None:
    """Replace a small file at once, readable by its owner only."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - the mode must be right from the start
        file.write(text)
    temporary.replace(path)


def write_finish(directory: Path, finish: Finish) -> None:
    """Note how the run ended; everything logged lies in the data file by now."""
    values = asdict(finish) | {"message": finish.message[:MAX_MESSAGE]}
    write_private(directory / FINISH_FILE, json.dumps(values))


def read_finish(directory: Path) -> Finish | None:
    """Return how the run ended, if its trainer has said so."""
    try:
        values = json.loads((directory / FINISH_FILE).read_bytes())
    except FileNotFoundError:
        return None
    return Finish(EndState(values["state"]), values["reason"], values["message"])


def read_position(directory: Path) -> int:
    """Return how far the server acknowledged the data, in bytes; 0 before the first answer."""
    try:
        return int((directory / POSITION_FILE).read_text() or 0)
    except FileNotFoundError:
        return 0


def size_of(path: Path) -> int:
    """Return a file's size in bytes; 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Appender:
    """Append records to a spool; safe in threads and after a fork, and it never raises.

    What cannot be written, because the spool is full or the disk is, is counted in `dropped`
    and said once.
    """

    def __init__(self, directory: Path, *, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = directory
        self._limit = limit
        self._data = _open_append(directory / DATA_FILE)
        self._dropped = _open_append(directory / DROPPED_FILE)
        self._room = 0
        self._warned = False
        self._torn = False

    def append(self, lines: bytes, *, points: int = 0) -> bool:
        """Write whole lines at once; only points are ever dropped for want of room."""
        if points and self._is_full(len(lines)):
            self._drop(points, f"the spool has reached its limit of {self._limit} bytes")
            return False
        data = b"\n" + lines if self._torn else lines
        try:
            written = os.write(self._data, data)
        except OSError as error:
            self._drop(points, str(error))
            return False
        self._torn = written < len(data)
        if self._torn:
            self._drop(points, "the disk is full")
        return not self._torn

    def size(self) -> int:
        """Return how many bytes were appended, by all processes."""
        return os.fstat(self._data).st_size

    def close(self) -> None:
        """Close the files; nothing may be appended after."""
        data, dropped = self._data, self._dropped
        self._data = self._dropped = -1  # a number that no later file can get
        os.close(data)
        os.close(dropped)

    def _is_full(self, more: int) -> bool:
        """Say whether there is no room; what was sent and given back to the disk is room.

        The file is looked at once in a while only, so processes that share it may go over the
        limit by as much as each writes in between.
        """
        if more <= self._room:
            self._room -= more
            return False
        status = os.fstat(self._data)
        taken = status.st_size
        if taken + more > self._limit:
            taken = status.st_blocks * 512
        left = self._limit - taken - more
        if left < 0:
            return True
        self._room = min(left, _LOOK_EVERY)
        return False

    def _drop(self, points: int, why: str) -> None:
        try:
            os.write(self._dropped, b"." * points)
        except OSError as error:
            why = f"{why}, and they cannot be counted: {error}"
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"modelyard: {why}; points are dropped and counted on the run",
                RuntimeWarning,
                stacklevel=5,
            )


def _open_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
