"""A storage host that stands still, or that cannot even be asked, is left alone for a while.

What is under way there ends at once when it is no longer wanted.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from modelyard import DataLossError
from modelyard._transfers import direct as _direct
from modelyard._transfers import storage as _storage
from modelyard._transport.calls import Flow, Pause, blocking, side_by_side
from modelyard._transport.config import find_settings
from modelyard._transport.connection import AsyncConnection, Connection
from modelyard.artifact.v1 import transfer_service_pb2 as service

from tests.servers.http import serving_http
from tests.unit.client.test_distrust import Connect, Liar, serve

PIECE = 1_000
SETTINGS = find_settings("127.0.0.1:9", token="t", environ={})


class Still:
    """Serves one piece of what is asked for, and no more; without a tongue, nothing."""

    def __init__(self, *, is_mute: bool = False) -> None:
        self.requests = 0
        self.is_mute = is_mute
        self.is_asked = threading.Event()
        self.is_over = threading.Event()


@contextmanager
def serving(still: Still) -> Iterator[str]:
    """Serve it; yield the URL of an object."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            still.requests += 1
            if not still.is_mute:
                self.send_response(206)
                self.send_header("Content-Length", str(2 * PIECE))
                self.end_headers()
                self.wfile.write(bytes(PIECE))
            self.stand_still()

        def do_PUT(self) -> None:
            self.stand_still()

        def stand_still(self) -> None:
            still.is_asked.set()
            still.is_over.wait(60)

    with serving_http(Handler) as port:
        try:
            yield f"http://127.0.0.1:{port}/packs/0"
        finally:
            still.is_over.set()


def got(url: str) -> list[bytes]:
    """Read two pieces of an object, as far as they come."""
    buffers = itertools.repeat(memoryview(bytearray(PIECE)))
    grant = service.Grant(method="GET", url=url)
    errand = _storage.Errand(None)
    return [bytes(piece) for piece in errand.get(grant, 0, [PIECE, PIECE], buffers)]


def test_one_that_stands_still_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_storage, "_READ_SECONDS", 1.0)
    still = Still()
    with serving(still) as url:
        assert got(url) == [bytes(PIECE)]
        assert got(url) == []
    assert still.requests == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://[127.0.0.1/packs/0",
        "http://127.0.0.1:port/packs/0",
        f"http://{'a' * 64}.example/packs/0",
        "http://127.0.0.1:9/päcks/0",
        "http://127.0.0.1:9/packs /0",
        "packs/0",
    ],
)
def test_what_names_no_object_gives_none(url: str) -> None:
    assert got(url) == []
    assert not _storage.Errand(None).put(service.Grant(method="PUT", url=url), b"data")


def reading(url: str) -> Flow[None]:
    chunks = [service.ChunkPlace(length_bytes=PIECE, offset_bytes=n * PIECE) for n in range(2)]
    places = _direct.Places(chunks, [service.Grant(method="GET", url=url)], None)
    yield from _direct.read(places, 0, 2, lambda _: None)


def sending(url: str) -> Flow[None]:
    errand = _storage.Errand(None)
    grant = service.Grant(method="PUT", url=url)
    yield from blocking(lambda: errand.put(grant, bytes(64 * 2**20)), errand.cancel)


def failing(still: Still) -> Flow[None]:
    while not still.is_asked.wait(0.01):
        yield Pause(0)
    raise DataLossError("not what it was")


def rests(thread: threading.Thread) -> bool:
    """Say whether a thread waits for something at this moment."""
    status = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "S"


@contextmanager
def interrupted(still: Still) -> Iterator[None]:
    """Expect what runs here to end by Ctrl-C, which comes when the server is asked."""
    lock, is_heard, main = threading.Lock(), threading.Event(), threading.main_thread()

    def press() -> None:
        still.is_asked.wait()
        rest = 0
        while not is_heard.wait(0.002):
            rest = rest + 1 if rests(main) else 0
            # Python does not hear one that comes just before it begins to wait.
            if rest % 1_000 == 10:
                with lock:
                    if not is_heard.is_set():
                        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    presses = threading.Thread(target=press)
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    presses.start()
    with pytest.raises(KeyboardInterrupt):
        try:
            yield
        finally:
            with lock:
                is_heard.set()
    presses.join()
    signal.signal(signal.SIGINT, before)
    assert not still.is_over.is_set()


class Noted:
    """What is done with storage, and whether it has ended."""

    def __init__(self, flow: Flow[None]) -> None:
        self.has_ended = False
        self._flow = flow

    def run(self) -> Flow[None]:
        try:
            yield from self._flow
        finally:
            self.has_ended = True


# Were they not cut short they would last as long as the server stands still.
pytestmark = pytest.mark.timeout(45)


@pytest.mark.parametrize("is_mute", [True, False])
@pytest.mark.parametrize("work", [reading, sending])
def test_what_stands_still_ends_with_the_work_it_is_part_of(
    is_mute: bool, work: Callable[[str], Flow[None]]
) -> None:
    still = Still(is_mute=is_mute)
    connection = Connection(SETTINGS, timeout=1)
    with serving(still) as url:
        part = Noted(work(url))
        with pytest.raises(DataLossError):
            connection.run(side_by_side(iter([part.run(), failing(still)]), limit=2))
        assert part.has_ended
        assert not still.is_over.is_set()
        assert not _storage._is_avoided(_storage._Host("http", url.split("/")[2], None))
    connection.close()


@pytest.mark.parametrize("is_mute", [True, False])
@pytest.mark.parametrize("is_part", [True, False])
@pytest.mark.parametrize("work", [reading, sending])
def test_what_stands_still_ends_by_ctrl_c(
    is_mute: bool, is_part: bool, work: Callable[[str], Flow[None]]
) -> None:
    still = Still(is_mute=is_mute)
    connection = Connection(SETTINGS, timeout=1)
    with serving(still) as url:
        one = Noted(work(url))
        flow: Flow[object] = side_by_side(iter([one.run()]), limit=1) if is_part else one.run()
        with interrupted(still):
            connection.run(flow)
        assert one.has_ended
    connection.close()


def test_a_pull_from_what_stands_still_ends_by_ctrl_c(connect: Connect, tmp_path: Path) -> None:
    still, size = Still(is_mute=True), 2 * 2**20
    liar = Liar("a", bytes(size), true=bytes(size))
    with serving(still) as url:
        chunks = [service.ChunkPlace(length_bytes=2**20, offset_bytes=n * 2**20) for n in range(2)]
        liar.places.files.add(chunks=chunks)
        liar.places.grants.add(method="GET", url=url)
        with interrupted(still):
            serve(connect, liar).artifacts.pull(liar.digest, tmp_path / "out")


@pytest.mark.parametrize("work", [reading, sending])
async def test_what_stands_still_ends_when_it_is_cancelled(
    work: Callable[[str], Flow[None]],
) -> None:
    still = Still(is_mute=True)
    connection = AsyncConnection(SETTINGS, timeout=1)
    with serving(still) as url:
        task = asyncio.create_task(connection.run(work(url)))
        await asyncio.to_thread(still.is_asked.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not still.is_over.is_set()
    await connection.close()


def test_what_is_not_wanted_is_not_begun() -> None:
    still = Still()
    errand = _storage.Errand(None)
    errand.cancel()
    with serving(still) as url:
        assert not errand.put(service.Grant(method="PUT", url=url), b"data")
        assert list(errand.get(service.Grant(method="GET", url=url), 0, [1], iter([]))) == []
    assert still.requests == 0
