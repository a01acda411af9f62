"""Getting chunks across: ask which are missing, send those, ask again after a break.

There is no upload session to lose. A stream carries what one pack holds, so a broken
connection costs at most that, of each stream under way.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelyard._transfers import direct as _direct
from modelyard._transfers import storage as _storage
from modelyard._transfers import wire as _wire
from modelyard._transfers.chunking import MAX_CHUNK_BYTES
from modelyard._transfers.progress import Meter
from modelyard._transfers.tree import LocalFile
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import BYTES_TIMEOUT, Call, Flow, Upload, ask, call
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import FailedPreconditionError, ModelyardError, UnavailableError

DIGESTS_PER_CALL = 4096
CHUNKS_PER_MESSAGE = 4096
DIRECT_BYTES = 1024 * 1024
"""Less than this goes through the service: two calls and a request cost more."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk to send: how to read it, and how long it is."""

    read: Callable[[int, int], bytes]
    offset: int
    length: int

    def data(self) -> bytes:
        """Return its bytes."""
        return self.read(self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads ranges of a file, as long as nobody writes to it."""

    file: LocalFile

    def read(self, offset: int, count: int) -> bytes:
        """Return a range.

        Raises:
            FailedPreconditionError: FILE_CHANGED.
        """
        with self.file.location.open("rb", buffering=0) as stream:
            data = os.pread(stream.fileno(), count, offset)
            self.check(os.fstat(stream.fileno()))
        return data

    def check(self, found: os.stat_result) -> None:
        """Refuse the file with FILE_CHANGED when it is not as it was."""
        if (found.st_size, found.st_mtime_ns) != (self.file.size, self.file.mtime_ns):
            raise changed(self.file)


def changed(file: LocalFile) -> FailedPreconditionError:
    """Say that a file is not what it was when the push began."""
    return FailedPreconditionError(
        f"{file.location} changed while it was sent; try again when nothing writes to it",
        reason="FILE_CHANGED",
        metadata={"path": file.path},
    )


class Delivery:
    """Some chunks of a project: which are stored already, and which are still to be sent."""

    def __init__(self, parent: str, pieces: dict[bytes, Piece], meter: Meter) -> None:
        self._parent = parent
        self._pieces = pieces
        self._meter = meter
        self._missing = list(pieces)
        self._counted: set[bytes] = set()
        self._asked = False
        self._is_told = False
        self._direct = False
        self.has_sent = False
        """Whether any of it was missing."""

    def send(self) -> Flow[None]:
        """Send what is missing, as often as it takes."""
        breaks = Breaks(sending=True)
        last = len(self._missing)
        while True:
            advanced = False
            try:
                if not self._is_told:
                    yield from self._ask()
                self._is_told = False
                # What a broken stream brought across was not acknowledged, but it counts.
                advanced, last = len(self._missing) < last, len(self._missing)
                if self._missing:
                    self.has_sent = True
                    yield from self._send()
            except ModelyardError as error:
                yield breaks.after(error, advanced=advanced)
            else:
                return

    def learn(self, answer: service.FindMissingResponse) -> None:
        """Take the answer to a question about all of it, which need not be asked then."""
        self._is_told = True
        self._note(answer.missing_chunk_digests, direct=answer.direct)

    def _ask(self) -> Flow[None]:
        missing: list[bytes] = []
        direct = False
        for digests in slices(self._missing, DIGESTS_PER_CALL):
            request = service.FindMissingRequest(parent=self._parent, chunk_digests=digests)
            answer = yield from ask(find(request, lambda r: r))
            missing += answer.missing_chunk_digests
            direct = answer.direct
        self._note(missing, direct=direct)

    def _note(self, missing: Sequence[bytes], *, direct: bool) -> None:
        absent = set(missing)
        wanted, self._missing = self._missing, [d for d in self._missing if d in absent]
        self._direct = direct and _storage.usable()
        if not self._asked:
            self._asked = True
            self._count([digest for digest in wanted if digest not in absent], present=True)

    def _send(self) -> Flow[None]:
        if self._direct and sum(map(self._length, self._missing)) >= DIRECT_BYTES:
            self._missing = yield from _direct.send(
                self._parent, self._missing, self._length, self._read
            )
        if self._missing:
            yield from self._stream()

    def _length(self, digest: bytes) -> int:
        return self._pieces[digest].length

    def _stream(self) -> Flow[None]:
        feed = _Feed(self._parent, self._missing, self._read)
        yield Upload(
            feed.messages(),
            service.WriteChunksRequest,
            service.WriteChunksResponse,
            feed.acknowledged,
            lambda: feed.error,
        )
        if feed.durable < len(self._missing):
            raise UnavailableError("the server ended the stream before all was stored")

    def _read(self, digest: bytes) -> bytes:
        data = self._pieces[digest].data()
        self._count([digest], present=False)
        return data

    def _count(self, digests: Sequence[bytes], *, present: bool) -> None:
        # What is sent again after a broken connection is counted once.
        fresh = [digest for digest in digests if digest not in self._counted]
        self._counted.update(fresh)
        self._meter.add(sum(self._pieces[digest].length for digest in fresh), present=present)


class _Feed:
    """One stream of chunks, made as it is sent."""

    def __init__(
        self, parent: str, wanted: Sequence[bytes], read: Callable[[bytes], bytes]
    ) -> None:
        self.durable = 0
        self.error: Exception | None = None
        self._parent = parent
        self._wanted = wanted
        self._read = read

    def messages(self) -> Iterator[bytes]:
        """Return the requests; what goes wrong in between is kept in `error`."""
        try:
            chunks: list[_wire.Chunk] = []
            size = 0
            for digest in self._wanted:
                data = self._read(digest)
                if size + len(data) > MAX_CHUNK_BYTES or len(chunks) == CHUNKS_PER_MESSAGE:
                    yield _wire.write_chunks(self._parent, chunks)
                    chunks, size = [], 0
                chunks.append(_wire.Chunk(digest, data))
                size += len(data)
            yield _wire.write_chunks(self._parent, chunks)
        except Exception as problem:
            # gRPC would only log it and cancel the call.
            self.error = problem
            raise

    def acknowledged(self, response: service.WriteChunksResponse) -> None:
        """Take note of how many chunks are durable."""
        self.durable = response.durable_chunk_count


def find(
    request: service.FindMissingRequest, pick: Callable[[service.FindMissingResponse], T]
) -> Call[T]:
    """Ask what is missing."""
    return call(request, service.FindMissingResponse, pick, timeout=BYTES_TIMEOUT)


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of at most so many items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
