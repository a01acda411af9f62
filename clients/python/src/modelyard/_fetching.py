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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from modelyard import _direct, _storage, _wire
from modelyard._calls import Download, Flow, Pause, side_by_side
from modelyard._chunking import MAX_CHUNK_BYTES
from modelyard._progress import Meter
from modelyard._sending import Breaks
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import DataLossError, UnavailableError

SMALL_BYTES = 1024 * 1024
"""A file that is not larger is fetched whole, together with others."""
RANGE_BYTES = 32 * 1024 * 1024
PARTS_AT_ONCE = 3
CHUNKS_PER_FILE = 400_000
"""More than any server keeps: one that goes on is not listened to."""
_BREATH_BYTES = 32 * 1024 * 1024
_WAIT_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch and where to write it."""

    file: artifact_pb2.File
    place: Path


@dataclass(slots=True)
class Recipe:
    """Of which chunks a file is made."""

    file: artifact_pb2.File = field(default_factory=artifact_pb2.File)
    direct: bool = False
    """Whether its chunks may be read straight from storage."""
    digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    """Where each chunk begins, and where the last one ends."""

    def take(self, message: service.ReadRecipeResponse) -> None:
        """Take one message of the stream."""
        if message.HasField("file"):
            self.file = message.file
            self.direct = message.direct and _storage.usable()
        self.digests += message.chunk_digests
        self.sizes += message.chunk_sizes
        if len(self.digests) > CHUNKS_PER_FILE or len(self.sizes) > CHUNKS_PER_FILE:
            raise damaged(self.file.path, self.file.sha256)

    def check(self, path: str) -> None:
        """Refuse what does not add up to the file."""
        self.offsets = list(accumulate(self.sizes, initial=0))
        sound = len(self.digests) == len(self.sizes) and all(
            0 < size <= MAX_CHUNK_BYTES for size in self.sizes
        )
        if not sound or self.offsets[-1] != self.file.size_bytes:
            raise damaged(path, self.file.sha256)


def damaged(path: str, sha256: str) -> DataLossError:
    """Say that a file did not arrive as it was stored."""
    return DataLossError(
        f"{path} did not arrive as it was stored",
        reason="CORRUPT_BYTES",
        metadata={"digest": sha256, "path": path},
    )


def read_recipe(artifact: str, path: str) -> Flow[Recipe]:
    """Ask of which chunks a file is made."""
    breaks = Breaks()
    request = service.ReadRecipeRequest(artifact=artifact, path=path)
    while True:
        recipe = Recipe()
        try:
            yield Download(request, service.ReadRecipeResponse.FromString, recipe.take)
        except UnavailableError as error:
            yield breaks.after(error, advanced=False)
        else:
            recipe.check(path)
            return recipe


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

    # Each is verified here; of those that are wrong the service is asked once more, which it
    # then does, too.
    yield from _read_files(artifact, left, take, unverified=True)
    yield from _read_files(artifact, left, take, unverified=False)
    for path, one in left.items():
        raise damaged(path, one.file.sha256)


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
        except UnavailableError as error:
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

    def take(self, number: int, data: memoryview) -> None:
        """Write a chunk."""
        _write_at(self.descriptor, data, self.recipe.offsets[number])
        self._there[number] = 1
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
        # Only a process that may reach storage itself asks whether it should.
        recipe = (yield from read_recipe(artifact, wanted.file.path)) if _storage.usable() else None
        if os.fstat(file.number).st_size == 0 and not (recipe and recipe.direct):
            if (yield from _stream(artifact, wanted, file.number, meter)):
                return
            meter = Meter(0, None)
        recipe = recipe or (yield from read_recipe(artifact, wanted.file.path))
        if recipe.file.size_bytes != wanted.file.size_bytes:
            raise damaged(wanted.file.path, wanted.file.sha256)
        places = None
        if recipe.direct:
            places = yield from _direct.find(artifact, wanted.file.sha256, recipe.digests)
        digest = yield from _assemble(artifact, _Assembly(recipe, file.number, meter), places)
        if places is not None and digest != wanted.file.sha256:
            # What is not what it is called is found now, and asked of the service.
            again = _Assembly(recipe, file.number, Meter(0, None))
            digest = yield from _assemble(artifact, again, None)
        if digest != wanted.file.sha256:
            os.ftruncate(file.number, 0)
            raise damaged(wanted.file.path, wanted.file.sha256)


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
        except UnavailableError as error:
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
    if places is not None:
        start = _direct.receive(places, start, end, assembly.take)
    if start < end:
        yield from read_chunks(artifact, assembly.recipe, (start, end), assembly.take)


class _Cutter:
    """Cuts what arrives into chunks, verifies each and hands it on."""

    def __init__(
        self, recipe: Recipe, first: int, last: int, take: Callable[[int, memoryview], None]
    ) -> None:
        self.next = first
        self._recipe = recipe
        self._last = last
        self._take = take
        self._buffer = bytearray()

    def restart(self) -> None:
        """Forget the beginning of a chunk whose end did not come."""
        self._buffer.clear()

    def feed(self, data: _wire.Data) -> None:
        """Take the data of one message of the stream."""
        self._buffer += data
        at = 0
        with memoryview(self._buffer) as view:
            while self.next < self._last:
                end = at + self._recipe.sizes[self.next]
                if end > len(view):
                    break
                with view[at:end] as chunk:
                    if hashlib.sha256(chunk).digest() != self._recipe.digests[self.next]:
                        raise damaged(self._recipe.file.path, self._recipe.file.sha256)
                    self._take(self.next, chunk)
                self.next += 1
                at = end
        del self._buffer[:at]

    @property
    def complete(self) -> bool:
        """Whether all chunks came, and nothing else."""
        return self.next == self._last and not self._buffer


def read_chunks(
    artifact: str,
    recipe: Recipe,
    run: tuple[int, int],
    take: Callable[[int, memoryview], None],
) -> Flow[None]:
    """Read a run of chunks, each verified before it is handed on."""
    first, last = run
    cutter, breaks = _Cutter(recipe, first, last, take), Breaks()
    while not cutter.complete:
        before, offset = cutter.next, recipe.offsets[cutter.next]
        request = service.ReadFileRequest(
            artifact=artifact,
            path=recipe.file.path,
            offset_bytes=offset,
            limit_bytes=recipe.offsets[last] - offset,
        )
        try:
            yield Download(request, _wire.read_file_data, cutter.feed)
        except UnavailableError as error:
            cutter.restart()
            yield breaks.after(error, advanced=cutter.next > before)
        else:
            if not cutter.complete:
                raise damaged(recipe.file.path, recipe.file.sha256)


def read_whole(artifact: str, path: str) -> Flow[bytes]:
    """Return one file's bytes, verified."""
    recipe = yield from read_recipe(artifact, path)
    parts: list[bytes] = []
    if recipe.digests:
        run = (0, len(recipe.digests))
        yield from read_chunks(artifact, recipe, run, lambda _, data: parts.append(bytes(data)))
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != recipe.file.sha256:
        raise damaged(path, recipe.file.sha256)
    return data
