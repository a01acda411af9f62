"""Abuse of connections, spoken in raw HTTP/2: who behaves is answered meanwhile and afterwards."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.connection
import h2.errors
import h2.events
import psutil
import pytest
from hyperframe.frame import GoAwayFrame
from modelyard import Client, ModelyardError

from tests.rpc.metadata.conftest import Services, running
from tests.servers.proxy import proxied

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
MORE_BYTES = 100 * MIB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = "/modelyard.artifact.v1.ArtifactService/WriteChunks"
UNARY_PATH = "/modelyard.metadata.v1.ModelService/GetModel"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with running(tmp_path_factory.mktemp("connections")) as services:
        yield services


@dataclass
class Neighbour:
    """A stock client that asks all the time, and how it fared."""

    client: Client
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """Ask once."""
        started = time.monotonic()
        try:
            self.client.projects.get()
        except ModelyardError as error:
            self.failed.append(str(error))
        self.seconds.append(time.monotonic() - started)

    def told(self) -> str:
        """Say how it went."""
        at = sorted(self.seconds)
        p99 = at[int(len(at) * 0.99) - 1] if len(at) > 1 else at[0]
        return f"{len(at)} good calls, {len(self.failed)} failed, p99 {p99 * 1000:.0f} ms"


@contextmanager
def neighbour(
    services: Services, *, may_fail: float = 0.01, address: str = ""
) -> Iterator[Neighbour]:
    """Have somebody well-behaved call while something is done, and afterwards without a failure."""
    resident = psutil.Process(services.process.pid).memory_info().rss
    over = threading.Event()
    address = address or services.layout.address
    with Client(address, token=services.token(), project="default") as client:
        found = Neighbour(client)

        def go_on() -> None:
            while not over.is_set():
                found.ask()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()
        during = len(found.failed)
        for _ in range(20):
            found.ask()
        assert len(found.failed) == during, found.failed[during:]
    more = psutil.Process(services.process.pid).memory_info().rss - resident
    print(f"{found.told()}, {more / MIB:+.0f} MiB")
    assert services.process.poll() is None
    assert during <= len(found.seconds) * may_fail, found.failed[:3]
    assert more < MORE_BYTES


def connected(address: str) -> socket.socket:
    host, _, port = address.partition(":")
    found = socket.create_connection((host, int(port)), timeout=60)
    found.settimeout(60)
    return found


def greeted(address: str) -> tuple[socket.socket, h2.connection.H2Connection]:
    """Open a connection as HTTP/2 wants it."""
    wire, protocol = connected(address), h2.connection.H2Connection()
    protocol.initiate_connection()
    wire.sendall(protocol.data_to_send())
    return wire, protocol


def headers(address: str, token: str, path: str = PATH) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", f"Bearer {token}"),
    ]


def is_closed(wire: socket.socket) -> bool:
    """Read what a server still sends, until it closes the connection."""
    try:
        while wire.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_who_says_nothing_is_sent_away(services: Services) -> None:
    """T06: 500 connections without a word, and 500 with half a greeting."""
    with neighbour(services):
        silent = [connected(services.layout.address) for _ in range(500)]
        half = [connected(services.layout.address) for _ in range(500)]
        for wire in half:
            wire.sendall(PREFACE[:12])
        started = time.monotonic()
        assert all(is_closed(wire) for wire in [*silent, *half])
        print(f"all 1,000 closed after {time.monotonic() - started:.1f} s")
        for wire in [*silent, *half]:
            wire.close()


def test_streams_that_drip_harm_nobody_and_are_sent_away(tmp_path: Path) -> None:
    """T07: 100 uploads that announce a message and send a byte of it now and then."""
    with (
        running(tmp_path, MODELYARD_MESSAGE_SECONDS="5") as services,
        neighbour(services),
    ):
        wire, protocol = greeted(services.layout.address)
        first = protocol.get_next_available_stream_id()
        for stream in range(first, first + 200, 2):
            protocol.send_headers(stream, headers(services.layout.address, services.token()))
            protocol.send_data(stream, b"\0" + (4 * MIB).to_bytes(4, "big") + b"\x0a")
        wire.sendall(protocol.data_to_send())
        started, ended = time.monotonic(), set[int]()
        while len(ended) < 100:
            for event in protocol.receive_data(wire.recv(65_536)):
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    ended.add(event.stream_id or 0)
            for stream in set(range(first, first + 200, 2)) - ended:
                protocol.send_data(stream, b"x")
            wire.sendall(protocol.data_to_send())
        print(f"all 100 ended after {time.monotonic() - started:.1f} s")
        wire.close()


def test_calls_that_do_not_come_whole_take_nobodys_place(
    services: Services, tmp_path: Path
) -> None:
    """T07, of unary calls: more than the proxy lets through, each of which lacks its last bytes."""
    with (
        proxied(tmp_path, services.layout.port) as proxy,
        neighbour(services, may_fail=0, address=proxy.address) as found,
    ):
        wire, protocol = greeted(proxy.address)
        for _ in range(600):
            stream = protocol.get_next_available_stream_id()
            sent = headers(proxy.address, services.token(), UNARY_PATH)
            protocol.send_headers(stream, sent)
            protocol.send_data(stream, b"\0" + (4 * MIB).to_bytes(4, "big") + b"\x0a")
            wire.sendall(protocol.data_to_send())
        wanted = len(found.seconds) + 100
        while len(found.seconds) < wanted:
            time.sleep(0.01)
        wire.close()


@pytest.mark.parametrize("count", [5_000, 40_000])
def test_streams_that_are_reset_at_once(services: Services, count: int) -> None:
    """T08: streams opened and reset, as fast as can be, on one connection after another.

    gRPC itself answers CANCELLED to some of what waits meanwhile; the shipped proxy is what stands
    before users.
    """
    with neighbour(services, may_fail=0.5):
        reset_many(services.layout.address, services.token(), count, at_a_time=500)


@pytest.mark.parametrize("at_a_time", [100, 500])
def test_streams_that_are_reset_at_once_behind_the_proxy(
    services: Services, tmp_path: Path, at_a_time: int
) -> None:
    """T08 as it is met: nobody else's call fails."""
    with services.client() as client:
        token = client.tokens.create("user:attacker", roles={"default": "contributor"}).secret
    with (
        proxied(tmp_path, services.layout.port) as proxy,
        neighbour(services, may_fail=0, address=proxy.address),
    ):
        reset_many(proxy.address, token, 40_000, at_a_time=at_a_time)


def reset_many(address: str, token: str, count: int, *, at_a_time: int) -> None:
    """Open and reset so many streams, so many of them on a connection."""
    done, started = 0, time.monotonic()
    while done < count:
        done += reset_streams(address, token, min(at_a_time, count - done))
    print(f"{done} streams reset in {time.monotonic() - started:.1f} s")


def reset_streams(address: str, token: str, count: int) -> int:
    """Open and reset streams until so many are, or the server closes the connection."""
    wire, protocol = greeted(address)
    sent = 0
    try:
        for _ in range(count):
            stream = protocol.get_next_available_stream_id()
            protocol.send_headers(stream, headers(address, token))
            protocol.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            wire.sendall(protocol.data_to_send())
            sent += 1
    except ConnectionError:  # as a server may
        sent += 1
    finally:
        wire.close()
    return sent


def test_who_only_pings_is_told_to_calm_down(services: Services) -> None:
    """T10."""
    wire, protocol = greeted(services.layout.address)
    with neighbour(services):
        try:
            for _ in range(1_000):
                protocol.ping(b"whatever")
                wire.sendall(protocol.data_to_send())
        except ConnectionError:
            pass
        assert farewell(wire, protocol) == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def farewell(wire: socket.socket, protocol: h2.connection.H2Connection) -> int | None:
    """Return the code with which a server says good-bye."""
    try:
        while data := wire.recv(65_536):
            # Frame by frame: to the protocol's state whatever follows the good-bye is an error.
            protocol.incoming_buffer.max_frame_size = protocol.max_inbound_frame_size
            protocol.incoming_buffer.add_data(data)
            for frame in protocol.incoming_buffer:
                if isinstance(frame, GoAwayFrame):
                    return frame.error_code
    except ConnectionError:
        return None
    return None
