"""Sending a file of which nothing is stored: as one stream, whose chunks the service names.

Where a file is not cut from its beginning, FastCDC's cuts fall together with those of the whole
after a chunk or two. So chunks from here and there tell whether any of a file is stored, for a
thirtieth of what it costs to hash them all. Whatever they miss is sent in vain; where it was stored
already, its second copy is dead space of the new pack until that is compacted.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from itertools import islice

from modelyard._transfers import storage as _storage
from modelyard._transfers import wire as _wire
from modelyard._transfers.chunking import MAX_CHUNK_BYTES, cut
from modelyard._transfers.progress import Meter
from modelyard._transfers.sending import Reader, find
from modelyard._transfers.tree import LocalFile
from modelyard._transport.calls import Flow, Pause, Upload, ask
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import UnavailableError

SAMPLE_EVERY_BYTES = 32 * 1024 * 1024
SAMPLE_BYTES = 3 * 1024 * 1024
SAMPLES = 512
"""The most there are of a file; each has a few chunks, and they are asked for in one call."""
_CHUNKS_PER_SAMPLE = 4
_UNEVEN_CHUNKS = 2
"""So many at the start of a sample may be cut where the whole is not."""


def looks_new(parent: str, file: LocalFile) -> Flow[bool]:
    """Say whether nothing of a file seems to be stored, and it is to go through the service."""
    every = max(SAMPLE_EVERY_BYTES, -(-file.size // SAMPLES // MAX_CHUNK_BYTES) * MAX_CHUNK_BYTES)
    digests: set[bytes] = set()
    with file.location.open("rb", buffering=0) as stream:
        for offset in range(0, file.size, every):
            data = os.pread(stream.fileno(), SAMPLE_BYTES, offset)
            digests.update(_sample(data, file.size, is_first=offset == 0))
            yield Pause(0)
    request = service.FindMissingRequest(parent=parent, chunk_digests=digests)
    answer = yield from ask(find(request, lambda r: r))
    is_direct = answer.direct and _storage.usable()
    return not is_direct and len(answer.missing_chunk_digests) == len(digests)


def _sample(data: bytes, size: int, *, is_first: bool) -> list[bytes]:
    """Return the digests of chunks that the whole file has, most likely."""
    first = 0 if is_first else _UNEVEN_CHUNKS
    # One more is cut than is taken: the last one may end where the sample does.
    chunks = islice(cut(io.BytesIO(data), size), first + _CHUNKS_PER_SAMPLE + 1)
    return [hashlib.sha256(chunk).digest() for chunk in chunks][first:-1]


class Feed:
    """A file, cut into a stream of chunks without digests as it is sent."""

    def __init__(self, parent: str, file: LocalFile, meter: Meter) -> None:
        self.count = 0
        """How many chunks."""
        self.error: Exception | None = None
        self._parent = parent
        self._file = file
        self._meter = meter
        self._sent = 0
        self._is_stopped = False
        self._lock = threading.Lock()

    def stop(self) -> int:
        """Count no more, and return how many bytes were: gRPC may still take a last message."""
        with self._lock:
            self._is_stopped = True
            return self._sent

    def messages(self) -> Iterator[bytes]:
        """Return the requests; what goes wrong in between is kept in `error`."""
        try:
            yield from self._messages()
        except Exception as problem:
            # gRPC would only log it and cancel the call.
            self.error = problem
            raise

    def _messages(self) -> Iterator[bytes]:
        chunks: list[_wire.Chunk] = []
        size = 0
        with self._file.location.open("rb", buffering=0) as stream:
            for data in cut(stream, self._file.size):
                if size + len(data) > MAX_CHUNK_BYTES:
                    yield self._message(chunks, size)
                    chunks, size = [], 0
                chunks.append(_wire.Chunk(b"", bytes(data)))
                size += len(data)
            Reader(self._file).check(os.fstat(stream.fileno()))
        yield self._message(chunks, size)

    def _message(self, chunks: list[_wire.Chunk], size: int) -> bytes:
        self.count += len(chunks)
        with self._lock:
            if not self._is_stopped:
                self._sent += size
                self._meter.add(size)
        return _wire.write_chunks(self._parent, chunks)


def send(feed: Feed, stored: Callable[[list[bytes]], object]) -> Flow[None]:
    """Send a file; `stored` is told the digests of chunks once they are durable, in order.

    Raises:
        UnavailableError: Not all of it got there.
    """
    named = 0

    def acknowledged(response: service.WriteChunksResponse) -> None:
        nonlocal named
        named += len(response.chunk_digests)
        stored(list(response.chunk_digests))

    yield Upload(
        feed.messages(),
        service.WriteChunksRequest,
        service.WriteChunksResponse,
        acknowledged,
        lambda: feed.error,
    )
    if named != feed.count:
        raise UnavailableError("the server ended the stream before all was stored")
