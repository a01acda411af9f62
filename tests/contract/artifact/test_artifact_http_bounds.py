"""What connections to the service's HTTP server may use up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from services.artifact.http.door import HttpBounds
from services.artifact.http.server import HttpServer, HttpSettings
from tests.contract.artifact.stores import until

ASK = b"GET / HTTP/1.1\r\nHost: files\r\n\r\n"
HALF = ASK[:-2]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


@asynccontextmanager
async def serving(
    bounds: HttpBounds, routes: Sequence[web.RouteDef] = (web.get("/", hello),)
) -> AsyncIterator[int]:
    """Run a server; give its port."""
    server = HttpServer(HttpSettings("127.0.0.1:0", "", "", "", bounds))
    running = asyncio.create_task(server.run_forever(routes))
    yield urlsplit(server.url).port or 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def answered(port: int, opened: list[Ends]) -> bool:
    """Ask once on a connection that stays; say whether there was an answer."""
    ends = await asyncio.open_connection("127.0.0.1", port)
    opened.append(ends)
    ends[1].write(ASK)
    try:
        return b"200 OK" in await ends[0].readline()
    except ConnectionError:
        return False


async def test_a_connection_too_many_is_closed_at_once() -> None:
    opened: list[Ends] = []
    async with serving(HttpBounds(connections=2)) as port:
        assert await answered(port, opened)
        assert await answered(port, opened)
        assert not await answered(port, opened)
        opened[0][1].close()

        async def has_room() -> bool:
            return await answered(port, opened)

        await until(has_room)
    for _, writer in opened:
        writer.close()


async def test_a_connection_that_rests_is_closed() -> None:
    async with serving(HttpBounds(idle_seconds=0.1)) as port:
        for sent in (b"", HALF, ASK, ASK + HALF):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            received = await asyncio.wait_for(reader.read(), 20)
            assert received.count(b"hello") == sent.count(ASK)
            writer.close()


async def test_a_reader_that_takes_nothing_is_not_waited_for(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    ended = threading.Event()

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.FileResponse(large)
        try:
            await response.prepare(request)
        finally:
            ended.set()
        return response

    bounds = HttpBounds(still_seconds=0.5)
    async with serving(bounds, [web.get("/", send)]) as port:
        with socket.create_connection(("127.0.0.1", port)) as stuck:
            stuck.sendall(ASK)
            assert await asyncio.to_thread(ended.wait, 20)
