"""Reading a stored file in place: seekable, by ranges, each chunk verified."""

from __future__ import annotations

import asyncio
import io
from bisect import bisect_right
from types import TracebackType
from typing import Self

from modelyard._transfers.recipes import Recipe, read_chunks
from modelyard._transport.calls import Flow
from modelyard._transport.connection import AsyncConnection, Connection

_READ_BYTES = 8 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024


class Window:
    """The chunks of a stored file that were read last."""

    def __init__(self, artifact: str, recipe: Recipe) -> None:
        self.size = recipe.file.size_bytes
        self._artifact = artifact
        self._recipe = recipe
        self._start = 0
        self._data = b""

    def read(self, position: int, count: int) -> Flow[bytes]:
        """Return up to so many bytes from a position on; none at the end only."""
        if position >= self.size or count <= 0:
            return b""
        if not self._start <= position < self._start + len(self._data):
            yield from self._load(position, min(count, _READ_BYTES))
        at = position - self._start
        return self._data[at : at + count]

    def _load(self, position: int, count: int) -> Flow[None]:
        offsets = self._recipe.offsets
        first = bisect_right(offsets, position) - 1
        last = bisect_right(offsets, min(position + count, self.size) - 1)
        parts: list[bytes] = []

        def take(_first: int, _last: int, data: memoryview) -> None:
            parts.append(bytes(data))

        yield from read_chunks(self._artifact, self._recipe, (first, last), take)
        self._start, self._data = offsets[first], b"".join(parts)


def position_of(offset: int, whence: int, *, now: int, size: int) -> int:
    """Return where a seek leads."""
    start = {io.SEEK_SET: 0, io.SEEK_CUR: now, io.SEEK_END: size}.get(whence)
    if start is None:
        raise ValueError(f"{whence} is no whence")
    if start + offset < 0:
        raise ValueError("a position cannot be negative")
    return start + offset


class _RemoteFile(io.RawIOBase):
    def __init__(self, connection: Connection, window: Window, name: str) -> None:
        super().__init__()
        self.name = name
        self._connection = connection
        self._window = window
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._connection.run(self._window.read(self._position, len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._window.size
        self._position = position_of(offset, whence, now=self._position, size=size)
        return self._position

    def tell(self) -> int:
        return self._position


def open_blocking(connection: Connection, window: Window, name: str) -> io.BufferedReader:
    """Return a file object that reads ranges as they are wanted."""
    return io.BufferedReader(_RemoteFile(connection, window, name), _BUFFER_BYTES)


class AsyncFile:
    """A stored file that is read by ranges; one reader at a time."""

    def __init__(self, connection: AsyncConnection, window: Window, name: str) -> None:
        self.name = name
        self._connection = connection
        self._window = window
        self._position = 0
        self._lock = asyncio.Lock()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._window.size

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another position, as of any file, and return it."""
        self._position = position_of(offset, whence, now=self._position, size=self.size)
        return self._position

    async def read(self, count: int = -1) -> bytes:
        """Return so many bytes, fewer at the end; all that are left if negative."""
        async with self._lock:
            left = self.size - self._position if count < 0 else count
            parts = []
            while left > 0:
                # At least a buffer's worth, so that small reads do not each cost a call.
                wanted = self._window.read(self._position, max(left, _BUFFER_BYTES))
                data = (await self._connection.run(wanted))[:left]
                if not data:
                    break
                parts.append(data)
                left -= len(data)
                self._position += len(data)
            return b"".join(parts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave: nothing is held open."""
