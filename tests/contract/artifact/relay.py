"""A way between client and service that counts what passes, and that tests make worse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_READ_BYTES = 64 * 1024


class Relay:
    """Passes bytes on to a port; what comes back may be changed, or end early."""

    def __init__(self) -> None:
        self.target = 0
        self.received = 0
        """How many bytes came back from the port."""
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.cut_after = -1
        """After how many more bytes that come back a connection ends; less than 0: never."""
        self._open: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        task = asyncio.create_task(self.serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways."""
        forth = None
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._forth(reader, forth))
                await self._back(back, writer)
                raise ConnectionResetError
        except* ConnectionError:
            pass
        finally:
            for end in filter(None, (forth, writer)):
                end.close()

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            self.received += len(data)
            if 0 <= self.cut_after < len(data):
                self.cut_after = -1
                return
            self.cut_after -= len(data) if self.cut_after >= 0 else 0
            writer.write(self.change(data))
            await writer.drain()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, int]]:
    """Run a relay; give it and its port."""
    relay = Relay()
    server = await asyncio.start_server(relay.accept, "127.0.0.1", 0)
    try:
        yield relay, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await relay.close()
        await server.wait_closed()
