"""Sending one large file.

Where nothing of it is stored yet it goes as one stream and is hashed once: the service names
its chunks, and the file's own digest tells whether all arrived as it was. Otherwise, or when
that stream breaks, it is cut into windows of 64 MiB, whose chunks are hashed, asked for and
sent, several windows at a time. Either way it is committed while it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from modelyard._transfers.chunking import cut
from modelyard._transfers.progress import Again, Meter
from modelyard._transfers.sending import Delivery, Piece, Reader, changed, find, slices
from modelyard._transfers.tree import Entry, LocalFile
from modelyard._transfers.unseen import Feed, looks_new, send
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import Flow, Pause, Upload, ask, side_by_side
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import ModelyardError

WINDOW_BYTES = 64 * 1024 * 1024
WINDOWS_AT_ONCE = 2
_READ_BYTES = 1024 * 1024
_BREATH_BYTES = 32 * 1024 * 1024
_DIGESTS_PER_MESSAGE = 50_000
_WAIT_SECONDS = 0.02


@dataclass(slots=True)
class _Window:
    """A part of a large file: its chunks in order, and whether they are all stored."""

    chunks: list[bytes] = field(default_factory=list)
    stored: bool = False


@dataclass(slots=True)
class _Large:
    """A large file on its way: what is known of it so far."""

    file: LocalFile
    windows: list[_Window] = field(default_factory=list)
    digest: bytes | None = None
    is_new: bool = False
    """Whether some of it had to be sent."""
    is_cut: bool = False
    """Whether there are no more windows to come."""
    is_committed: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether all of its chunks are."""
        return self.is_cut and all(window.stored for window in self.windows)


def push_large(parent: str, file: LocalFile, meter: Meter) -> Flow[list[Entry]]:
    """Send one large file while its own digest is found."""
    if (yield from looks_new(parent, file)):
        feed = Feed(parent, file, meter)
        try:
            return (yield from _push_unseen(parent, file, feed))
        except ModelyardError as error:
            meter = Again(meter, feed.stop())
            if error.reason != "DIGEST_MISMATCH":  # what got there broken is sent again
                yield Breaks(sending=True).after(error, advanced=False)
    return (yield from _push_windows(parent, file, meter))


def _push_unseen(parent: str, file: LocalFile, feed: Feed) -> Flow[list[Entry]]:
    """Send a file of which nothing is stored."""
    large = _Large(file, is_new=True)

    def stored(chunks: list[bytes]) -> None:
        large.windows.append(_Window(chunks, stored=True))

    def send_all() -> Flow[None]:
        yield from send(feed, stored)
        large.is_cut = True

    parts = iter((_hash_whole(large), _commit_meanwhile(parent, large), send_all()))
    yield from side_by_side(parts, limit=3)
    return (yield from _finish(parent, large))


def _push_windows(parent: str, file: LocalFile, meter: Meter) -> Flow[list[Entry]]:
    """Send of a file what is missing, window by window."""
    breaks = Breaks(sending=True)
    while True:
        large = _Large(file)
        yield from side_by_side(_parts(parent, large, meter), limit=2 + WINDOWS_AT_ONCE)
        try:
            return (yield from _finish(parent, large))
        except ModelyardError as error:
            meter = Meter(0, None)
            yield breaks.after(error, advanced=False)


def _parts(parent: str, large: _Large, meter: Meter) -> Iterator[Flow[None]]:
    yield _hash_whole(large)
    yield _commit_meanwhile(parent, large)
    for window, pieces in _windows(large, meter):
        large.windows.append(window)
        yield _send_window(parent, large, window, Delivery(parent, pieces, meter))
    large.is_cut = True


def _send_window(parent: str, large: _Large, window: _Window, delivery: Delivery) -> Flow[None]:
    yield from delivery.send()
    window.stored = True
    large.is_new |= delivery.has_sent


def _windows(large: _Large, meter: Meter) -> Iterator[tuple[_Window, dict[bytes, Piece]]]:
    """Cut and hash a file; yield its chunks by as much as goes into one pack."""
    read = Reader(large.file).read
    window, pieces = _Window(), dict[bytes, Piece]()
    offset = size = 0
    with large.file.location.open("rb", buffering=0) as stream:
        for data in cut(stream, large.file.size):
            if size + len(data) > WINDOW_BYTES:
                yield window, pieces
                window, pieces, size = _Window(), {}, 0
            digest = hashlib.sha256(data).digest()
            window.chunks.append(digest)
            if digest in pieces:
                meter.add(len(data), present=True)
            pieces[digest] = Piece(read, offset, len(data))
            offset += len(data)
            size += len(data)
    if offset != large.file.size:
        raise changed(large.file)
    yield window, pieces


def _hash_whole(large: _Large) -> Flow[None]:
    state = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    read = 0
    with large.file.location.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(buffer[:count])
            read += count
            if read % _BREATH_BYTES < count:
                yield Pause(0)
    if read != large.file.size:
        raise changed(large.file)
    large.digest = state.digest()


def _commit_meanwhile(parent: str, large: _Large) -> Flow[None]:
    """Commit a new file while it is sent: what is stored of it, the server hashes already."""
    while not large.is_new:
        if large.is_stored:
            return
        yield Pause(_WAIT_SECONDS)
    try:
        yield _commit(_recipe(parent, large))
    except ModelyardError:
        return  # tried once more when all is stored, which tells what is wrong
    large.is_committed = True


def _recipe(parent: str, large: _Large) -> Iterator[service.CommitFileRequest | Pause]:
    """Name the chunks of a file once they and all before them are stored; last of all itself."""
    named = 0
    while True:
        is_last = large.is_stored and large.digest is not None
        windows = list(takewhile(lambda window: window.stored, large.windows[named:]))
        named += len(windows)
        chunks = [chunk for window in windows for chunk in window.chunks]
        for some in slices(chunks, _DIGESTS_PER_MESSAGE):
            yield service.CommitFileRequest(parent=parent, chunk_digests=some)
        if is_last:
            break
        yield Pause(_WAIT_SECONDS)
    yield service.CommitFileRequest(
        parent=parent, digest=large.digest or b"", size_bytes=large.file.size
    )


def _commit(messages: Iterator[service.CommitFileRequest | Pause]) -> Upload:
    return Upload(
        messages,
        service.CommitFileRequest,
        service.CommitFileResponse,
        lambda _: None,
        lambda: None,
    )


def _finish(parent: str, large: _Large) -> Flow[list[Entry]]:
    """Commit a file all of whose chunks are stored, unless that was done meanwhile."""
    assert large.digest is not None  # noqa: S101 - the first part found it
    if not large.is_committed:
        request = service.FindMissingRequest(parent=parent, file_digests=[large.digest])
        if (yield from ask(find(request, lambda r: list(r.missing_file_digests)))):
            yield _commit(_recipe(parent, large))
    return [large.file.entry(large.digest)]
