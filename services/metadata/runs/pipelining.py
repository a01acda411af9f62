"""Reading a stream ahead while what was read before is still being worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def pipelined(source: AsyncIterator[T], *, depth: int) -> AsyncIterator[T]:
    """Yield a source's items in order, up to `depth` of them read ahead, then its error."""
    ahead: asyncio.Queue[T | None] = asyncio.Queue(depth)

    async def read() -> None:
        try:
            async for item in source:
                await ahead.put(item)
        except Exception:
            await ahead.put(None)
            raise
        await ahead.put(None)

    reader = asyncio.create_task(read())
    try:
        while (item := await ahead.get()) is not None:
            yield item
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
