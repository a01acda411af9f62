"""Lines out of what a build prints: long ones cut, progress bars folded.

A line that is printed over by carriage returns is told as it stood at the end of each
window, and once more when it ends: a bar that moves a hundred times a second makes one
event a second, in order with all the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

MAX_LINE_BYTES = 16 * 1024
WINDOW_SECONDS = 1.0
_CHUNK_BYTES = 64 * 1024
_LONGEST_CHARACTER = 4


class Stream(Protocol):
    """What output is read from."""

    async def read(self, size: int, /) -> bytes:
        """Return what there is, at most so many bytes; nothing at the end."""
        ...


class Line(NamedTuple):
    """A printed line without its end."""

    text: str
    progress: bool = False
    """How a line stood that may still be printed over."""


OnOutput = Callable[[Line], Awaitable[None]]


class Lines:
    """Cuts output into lines, however it arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._over = False
        self._told = b""

    def feed(self, data: bytes) -> list[Line]:
        """Take output; return the lines that it ended."""
        ended, newline, self._rest = (self._rest + data).rpartition(b"\n")
        lines = _lines(ended) if newline else []
        if newline:
            self._over, self._told = False, b""
        if b"\r" in self._rest:
            self._over = True
            self._rest = _settled(self._rest) + self._rest[-1:] * self._rest.endswith(b"\r")
        while len(self._rest) > MAX_LINE_BYTES:
            lines.append(Line(_text(self._rest[:MAX_LINE_BYTES])))
            self._rest, self._over = self._rest[MAX_LINE_BYTES:], False
        return lines

    @property
    def moving(self) -> bool:
        """Say whether a line is being printed over and stands otherwise than was told."""
        return self._over and self._rest.rstrip(b"\r") not in (b"", self._told)

    def progress(self) -> Line:
        """Return how the line that is being printed over stands now."""
        self._told = self._rest.rstrip(b"\r")
        return Line(_text(self._told), progress=True)

    def end(self) -> list[Line]:
        """Return what was printed without a line's end."""
        rest, self._rest = _settled(self._rest), b""
        return _cut(rest) if rest else []


async def read_lines(stream: Stream, on_line: OnOutput) -> None:
    """Hand on the lines of a stream as they are printed, to its end."""
    clock = asyncio.get_running_loop().time
    lines, due = Lines(), float("inf")
    while True:
        try:
            async with asyncio.timeout_at(due if lines.moving else None):
                chunk = await stream.read(_CHUNK_BYTES)
        except TimeoutError:
            chunk = None
        if chunk == b"":
            break
        was_moving = lines.moving
        for line in lines.feed(chunk or b""):
            await on_line(line)
        if not lines.moving:
            continue
        if not was_moving:
            due = clock() + WINDOW_SECONDS
        elif clock() >= due:
            await on_line(lines.progress())
    for line in lines.end():
        await on_line(line)


def _lines(ended: bytes) -> list[Line]:
    """Return the lines of output that is whole lines, but for the last one's end."""
    if b"\r" not in ended:
        texts = _text(ended).split("\n")  # at once: most output is short plain lines
        if len(max(texts, key=len)) <= MAX_LINE_BYTES // _LONGEST_CHARACTER:
            return list(map(Line, texts))
    return [part for line in ended.split(b"\n") for part in _cut(_settled(line))]


def _settled(line: bytes) -> bytes:
    """Return what a line shows last: what was printed over is left out."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _cut(line: bytes) -> list[Line]:
    starts = range(0, max(len(line), 1), MAX_LINE_BYTES)
    return [Line(_text(line[start : start + MAX_LINE_BYTES])) for start in starts]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
