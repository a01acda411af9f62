"""Getting the bytes of files: small ones together, large ones by ranges, each chunk verified.

A file is right once it has its digest, which the artifact's digest vouches for: nothing is
trusted, and nothing gets its final name, before. A large file comes as one stream, or from
storage by ranges, and is hashed as it is written: the service need not hash it, too. What turns
out to be wrong, and what an earlier attempt left, is verified chunk by chunk, and only what is
not right is fetched, verified by the service.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from modelyard._transfers import direct as _direct
from modelyard._transfers import wire as _wire
from modelyard._transfers.progress import Again, Meter
from modelyard._transfers.recipes import Recipe, damaged, read_chunks, read_recipe
from modelyard._transfers.sending import slices
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import Download, Flow, Pause, side_by_side
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import ModelyardError

SMALL_BYTES = 1024 * 1024
"""A file that is not larger is fetched whole, together with others."""
RANGE_BYTES = 32 * 1024 * 1024
PARTS_AT_ONCE = 3
_BREATH_BYTES = 32 * 1024 * 1024
_WAIT_SECONDS = 0.02
_BUFFERS = 8
"""So far may hashing be behind, in pieces of 1 MiB."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch and where to write it."""

    file: artifact_pb2.File
    place: Path


def fetch_small(artifact: str, wanted: Sequence[Wanted], meter: Meter) -> Flow[None]:
    """Fetch small files that are not there yet."""
    left: dict[str, Wanted] = {}
    for one in wanted:
        if is_there(one):
            meter.add(one.file.size_bytes, present=True)
        else:
            left[one.file.path] = one

    def take(files: Iterable[tuple[str, _wire.Data]]) -> None:
        for path, data in files:
            one = left.get(path)
            if one is None:
                raise damaged(path, "")
            if hashlib.sha256(data).hexdigest() == one.file.sha256:
                _write(one.place, data)
                meter.add(one.file.size_bytes)
                del left[path]

    yield from _copy_together(artifact, [one.file for one in left.values()], take)
    # Each is verified here; of those that are wrong the service is asked once more, which it
    # then does, too.
    yield from _read_files(artifact, left, take, unverified=True)
    yield from _read_files(artifact, left, take, unverified=False)
    for path, one in left.items():
        raise damaged(path, one.file.sha256)


def _copy_together(
    artifact: str,
    files: Sequence[artifact_pb2.File],
    take: Callable[[Iterable[tuple[str, _wire.Data]]], None],
) -> Flow[None]:
    """Copy from storage the small files that lie together there, as far as that gets."""
    for some in slices(files, _direct.FILES_PER_GRANT):
        found = yield from _direct.find_together(artifact, some)
        if found is not None:
            yield from _copy_found(found, take)


def _copy_found(
    found: _direct.Together, take: Callable[[Iterable[tuple[str, _wire.Data]]], None]
) -> Flow[None]:
    def take_piece(piece: _direct.Piece) -> None:
        some = found.files[piece.first : piece.last]
        ends = list(accumulate(file.size_bytes for file in some))
        take(
            (file.path, piece.data[end - file.size_bytes : end])
            for file, end in zip(some, ends, strict=True)
        )

    yield from _direct.read(found.places, 0, len(found.files), take_piece)


def _read_files(
    artifact: str,
    left: Mapping[str, Wanted],
    take: Callable[[Iterable[tuple[str, _wire.Data]]], None],
    *,
    unverified: bool,
) -> Flow[None]:
    """Read the files that are left, once each but for breaks."""
    breaks = Breaks()
    while left:
        before = len(left)
        request = service.ReadFilesRequest(artifact=artifact, paths=left, unverified=unverified)
        try:
            yield Download(request, _wire.read_files, take)
        except ModelyardError as error:
            yield breaks.after(error, advanced=len(left) < before)
        else:
            return


def is_there(wanted: Wanted) -> bool:
    """Say whether a file lies where it is wanted, read over and found right."""
    try:
        with _Opened(wanted.place, os.O_RDONLY) as descriptor:
            if os.fstat(descriptor.number).st_size != wanted.file.size_bytes:
                return False
            return descriptor.sha256() == wanted.file.sha256
    except FileNotFoundError:
        return False


class _Opened:
    """An open file that is no link."""

    def __init__(self, place: Path, flags: int) -> None:
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | os.O_CLOEXEC
        self.number = os.open(place, flags, 0o666)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)

    def sha256(self) -> str:
        """Hash all of it."""
        with os.fdopen(os.dup(self.number), "rb", buffering=0) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(place: Path, data: _wire.Data) -> None:
    with _Opened(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        _write_at(file.number, memoryview(data), 0)


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


class _Assembly:
    """A large file that is being put together: which of its chunks are there."""

    def __init__(self, recipe: Recipe, descriptor: int, meter: Meter) -> None:
        self.recipe = recipe
        self.descriptor = descriptor
        self.meter = meter
        self._there = bytearray(len(recipe.digests))

    def look_over(self) -> Iterator[Pause]:
        """Find the chunks that an earlier attempt left."""
        size = os.fstat(self.descriptor).st_size
        seen = 0
        for number, digest in enumerate(self.recipe.digests):
            length = self.recipe.sizes[number]
            if self.recipe.offsets[number] + length > size:
                break
            data = os.pread(self.descriptor, length, self.recipe.offsets[number])
            if hashlib.sha256(data).digest() == digest:
                self._there[number] = 1
                self.meter.add(length, present=True)
            seen += length
            if seen > _BREATH_BYTES:
                seen = 0
                yield Pause(0)
        os.ftruncate(self.descriptor, min(size, self.recipe.file.size_bytes))

    def missing(self) -> Iterator[tuple[int, int]]:
        """Yield runs of chunks that are missing, from the first to before the last number."""
        count, start = len(self._there), 0
        while (start := self._there.find(0, start)) >= 0:
            end = start
            limit = self.recipe.offsets[start] + RANGE_BYTES
            while end < count and not self._there[end] and self.recipe.offsets[end] < limit:
                end += 1
            yield start, end
            start = end

    def take(self, first: int, last: int, data: memoryview) -> None:
        """Write chunks, from the first to before the last number."""
        _write_at(self.descriptor, data, self.recipe.offsets[first])
        self._there[first:last] = b"\1" * (last - first)
        self.meter.add(len(data))

    def hash(self) -> Flow[str]:
        """Hash the file from its beginning, as far as it is there, until all of it is."""
        state = hashlib.sha256()
        done = read = 0
        while done < len(self._there):
            if not self._there[done]:
                yield Pause(_WAIT_SECONDS)
                continue
            length = self.recipe.sizes[done]
            state.update(os.pread(self.descriptor, length, self.recipe.offsets[done]))
            done, read = done + 1, read + length
            if read > _BREATH_BYTES:
                read = 0
                yield Pause(0)
        return state.hexdigest()


def fetch_large(artifact: str, wanted: Wanted, meter: Meter) -> Flow[None]:
    """Fetch what is missing of a large file."""
    with _Opened(wanted.place, os.O_RDWR | os.O_CREAT) as file:
        places = yield from _direct.find(artifact, wanted.file)
        if os.fstat(file.number).st_size == 0:
            whole = (
                _stream(artifact, wanted, file.number, meter)
                if places is None
                else _copy(wanted, file.number, places, meter)
            )
            if (yield from whole):
                return
            came = os.fstat(file.number).st_size
            meter = Again(meter, came)
            if came == wanted.file.size_bytes:
                # What is not what it is called is found now, and asked of the service.
                places = None
        recipe = yield from _recipe(artifact, wanted.file, places)
        digest = yield from _assemble(artifact, _Assembly(recipe, file.number, meter), places)
        if places is not None and digest != wanted.file.sha256:
            again = _Assembly(recipe, file.number, Meter(0, None))
            digest = yield from _assemble(artifact, again, None)
        if digest != wanted.file.sha256:
            os.ftruncate(file.number, 0)
            raise damaged(wanted.file.path, wanted.file.sha256)


def _recipe(artifact: str, file: artifact_pb2.File, places: _direct.Places | None) -> Flow[Recipe]:
    """Find of which chunks a file is made: those that have places, or ask."""
    if places is None:
        recipe = yield from read_recipe(artifact, file.path)
        if recipe.file.size_bytes != file.size_bytes:
            raise damaged(file.path, file.sha256)
        return recipe
    chunks = places.chunks
    recipe = Recipe(file, [c.digest for c in chunks], [c.length_bytes for c in chunks])
    recipe.check(file.path)
    return recipe


def _copy(wanted: Wanted, descriptor: int, places: _direct.Places, meter: Meter) -> Flow[bool]:
    """Copy a whole file from storage in order; say whether it arrived as it was stored.

    One thread receives, one writes and one hashes what is in memory still.
    """
    size, state, received = wanted.file.size_bytes, hashlib.sha256(), 0
    busy: deque[tuple[Future[None], Future[None]]] = deque()
    with _thread("write") as writer, _thread("hash") as hasher:

        def take(piece: _direct.Piece) -> None:
            nonlocal received
            written = writer.submit(_write_at, descriptor, piece.data, received)
            busy.append((written, hasher.submit(state.update, piece.data)))
            received += len(piece.data)
            meter.add(len(piece.data))
            if len(busy) == _BUFFERS:
                for one in busy.popleft():
                    one.result()

        yield from _direct.read(places, 0, len(places.chunks), take, buffers=_BUFFERS)
        for written, _ in busy:
            written.result()
    return received == size and state.hexdigest() == wanted.file.sha256


def _thread(name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, f"modelyard-{name}")


def _assemble(
    artifact: str, assembly: _Assembly, places: _direct.Places | None
) -> Flow[str | None]:
    """Fetch what is not there yet; return the digest of the whole."""
    yield from assembly.look_over()
    parts = _parts(artifact, assembly, places)
    digest, *_ = yield from side_by_side(parts, limit=PARTS_AT_ONCE)
    return digest


def _stream(artifact: str, wanted: Wanted, descriptor: int, meter: Meter) -> Flow[bool]:
    """Fetch a whole file in order; say whether it arrived as it was stored."""
    size, state, received = wanted.file.size_bytes, hashlib.sha256(), 0

    def take(data: _wire.Data) -> None:
        nonlocal received
        if received + len(data) > size:
            raise damaged(wanted.file.path, wanted.file.sha256)
        _write_at(descriptor, memoryview(data), received)
        state.update(data)
        received += len(data)
        meter.add(len(data))

    breaks = Breaks()
    while received < size:
        before = received
        request = service.ReadFileRequest(
            artifact=artifact,
            path=wanted.file.path,
            offset_bytes=received,
            unverified=True,  # the whole is verified here
        )
        try:
            yield Download(request, _wire.read_file_data, take)
        except ModelyardError as error:
            yield breaks.after(error, advanced=received > before)
        else:
            break
    return received == size and state.hexdigest() == wanted.file.sha256


def _parts(
    artifact: str, assembly: _Assembly, places: _direct.Places | None
) -> Iterator[Flow[str | None]]:
    yield assembly.hash()
    for start, end in list(assembly.missing()):
        yield _read_part(artifact, assembly, places, (start, end))


def _read_part(
    artifact: str, assembly: _Assembly, places: _direct.Places | None, run: tuple[int, int]
) -> Flow[None]:
    """Read a run of chunks, from storage as far as that gets."""
    start, end = run

    def take(piece: _direct.Piece) -> None:
        nonlocal start
        assembly.take(piece.first, piece.last, piece.data)
        start = piece.last

    if places is not None:
        yield from _direct.read(places, start, end, take)
    if start < end:
        yield from read_chunks(artifact, assembly.recipe, (start, end), assembly.take)
