"""A storage host that stands still, or that cannot even be asked, is left alone for a while."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Event

import pytest
from modelyard import _storage
from modelyard.artifact.v1 import transfer_service_pb2 as service

from tests.servers.http import serving_http

PIECE = 1_000


class Still:
    """Serves one piece of what is asked for, and no more."""

    def __init__(self) -> None:
        self.requests = 0
        self.is_over = Event()


@contextmanager
def serving(still: Still) -> Iterator[str]:
    """Serve it; yield the URL of an object."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            still.requests += 1
            self.send_response(206)
            self.send_header("Content-Length", str(2 * PIECE))
            self.end_headers()
            self.wfile.write(bytes(PIECE))
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
    return [bytes(piece) for piece in _storage.get(grant, 0, [PIECE, PIECE], buffers, None)]


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
    assert not _storage.put(service.Grant(method="PUT", url=url), b"data", None)
