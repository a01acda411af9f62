"""Logs: one JSON object a line on standard error, whatever a message holds."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

FLUSH_SECONDS = 0.1
_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """Write a record as one JSON object, so that no text can forge a second record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record, with everything given as `extra`."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = record.__dict__.items()
        fields.update({key: value for key, value in extra if key not in _OWN})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields, enc_hook=str).decode()


class BufferedHandler(logging.StreamHandler[TextIO]):
    """Write lines together, a moment later; a warning, or worse, at once with all before it.

    A line a call is many calls of the system; what a killed process loses is the last moment.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._filled = threading.Event()
        threading.Thread(target=self._flush_forever, name="logs", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's line for the next write."""
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:  # logging's own rule: it never fails its caller
            self.handleError(record)
        if record.levelno >= logging.WARNING:
            self.flush()
        elif not self._filled.is_set():
            self._filled.set()

    def flush(self) -> None:
        """Write what has been kept."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(lines))
                self.stream.flush()

    def _flush_forever(self) -> None:
        while True:
            self._filled.wait()
            time.sleep(FLUSH_SECONDS)
            self._filled.clear()
            self.flush()


def configure(level: str) -> None:
    """Send this process's logs to standard error; only programs call this."""
    handler = BufferedHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
