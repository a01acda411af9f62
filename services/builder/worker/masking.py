"""Masking: the values of secrets do not get into a log, a failure's message or an event.

Masked are each value, each of its lines (of four characters and more), and both as URLs,
JSON, XML, Python literals, hexadecimal and base64 write them. What a build's code does to a value
otherwise (cut it up, reverse it, encrypt it) cannot be told from other output.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from services.builder.worker.lines import Stream

MASK = "***"
MIN_LINE = 4
MIN_ENCODED = 8


class Mask:
    """Replaces the values of some secrets, however they are printed."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        found = {form.encode("utf-8", "surrogateescape") for v in values for form in _forms(v)}
        # The longest first, so that nothing of it is left when a part of it is a form as well.
        self._forms = sorted((form for form in found if form), key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without the values."""
        return self.raw(text.encode("utf-8", "replace")).decode() if self._forms else text

    def raw(self, data: bytes) -> bytes:
        """Return bytes without the values."""
        # Looking for each is many times quicker than one pattern of all that is mostly not there.
        present = [re.escape(form) for form in self._forms if form in data]
        return re.sub(b"|".join(present), MASK.encode(), data) if present else data

    def over(self, stream: Stream) -> Stream:
        """Return a stream without the values, wherever its chunks are cut."""
        return _Masked(self, stream) if self._forms else stream

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """Mask what is settled; return it, and the end that may be the beginning of a value."""
        masked = self.raw(data)
        start = min((self._begins(masked, form) for form in self._forms), default=len(masked))
        return masked[:start], masked[start:]

    @staticmethod
    def _begins(data: bytes, form: bytes) -> int:
        """Return where an end of the data begins that a form begins with, or the data's length."""
        place = max(len(data) - len(form) + 1, 0)
        while (place := data.find(form[:1], place)) >= 0:
            if form.startswith(data[place:]):
                return place
            place += 1
        return len(data)


class _Masked:
    """A stream whose values are masked: an end that may begin one waits for what follows."""

    def __init__(self, mask: Mask, stream: Stream) -> None:
        self._mask = mask
        self._stream = stream
        self._held = b""

    async def read(self, size: int, /) -> bytes:
        """Return what there is without the values; nothing at the end."""
        while chunk := await self._stream.read(size):
            settled, self._held = self._mask.split(self._held + chunk)
            if settled:
                return settled
        held, self._held = self._held, b""
        return held


def _forms(value: str) -> Iterator[str]:
    """Return how a value may look in a line of output."""
    lines = value.split("\n")
    parts = [line.rstrip("\r") for line in lines if len(line) >= MIN_LINE]
    whole = value.strip("\r\n")
    for part in {*parts, whole}:
        yield from (form for form in _written(part) if "\n" not in form)
    yield from _encoded(value.encode())
    yield from _encoded(whole.encode())


def _written(text: str) -> Iterator[str]:
    """Return how a text is written as it is and as JSON, Python, XML and URLs quote it."""
    yield text
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield escape(text)
    yield escape(text, {'"': "&quot;"})
    yield quote(text)
    yield quote(text, safe="")
    yield quote_plus(text)


def _encoded(data: bytes) -> Iterator[str]:
    """Return how bytes look in hexadecimal, and within base64, wherever they begin there."""
    forms = [data.hex(), data.hex().upper()]
    for shift in range(3):
        # Only the characters that nothing beside the value has a part in.
        start, end = -(-shift * 8 // 6), (shift + len(data)) * 8 // 6
        text = base64.b64encode(b"\0" * shift + data).decode()[start:end]
        forms += [text, text.replace("+", "-").replace("/", "_")]
    return (form for form in forms if len(form) >= MIN_ENCODED)
