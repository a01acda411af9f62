"""Of which chunks a stored file is made, and reading those, each verified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from modelyard._transfers import wire as _wire
from modelyard._transfers.chunking import MAX_CHUNK_BYTES
from modelyard._transport.breaks import Breaks
from modelyard._transport.calls import Download, Flow
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import DataLossError, ModelyardError

CHUNKS_PER_FILE = 400_000
"""More than any server keeps: one that goes on is not listened to."""


@dataclass(slots=True)
class Recipe:
    """Of which chunks a file is made."""

    file: artifact_pb2.File = field(default_factory=artifact_pb2.File)
    digests: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    """Where each chunk begins, and where the last one ends."""

    def take(self, message: service.ReadRecipeResponse) -> None:
        """Take one message of the stream."""
        if message.HasField("file"):
            self.file = message.file
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
        except ModelyardError as error:
            yield breaks.after(error, advanced=False)
        else:
            recipe.check(path)
            return recipe


class _Cutter:
    """Cuts what arrives into chunks, verifies each and hands it on."""

    def __init__(
        self, recipe: Recipe, first: int, last: int, take: Callable[[int, int, memoryview], None]
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
                    self._take(self.next, self.next + 1, chunk)
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
    take: Callable[[int, int, memoryview], None],
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
        except ModelyardError as error:
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
        yield from read_chunks(
            artifact, recipe, run, lambda _first, _last, data: parts.append(bytes(data))
        )
    data = b"".join(parts)
    if hashlib.sha256(data).hexdigest() != recipe.file.sha256:
        raise damaged(path, recipe.file.sha256)
    return data
