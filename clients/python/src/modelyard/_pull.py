"""Receiving a tree of files: list, read, verify, and only then give it its name.

Nothing is trusted: the paths are checked again, each file's size and SHA-256,
and the digest of the whole. What is not complete never has the final name.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelyard._calls import BYTES_TIMEOUT, Call, Download, Flow, Pause, ask, pages
from modelyard._names import id_of
from modelyard._push import ATTEMPTS, Progress
from modelyard._tree import Entry, check_paths, tree_digest
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as service
from modelyard.errors import AlreadyExistsError, DataLossError, UnavailableError

_FILES_PER_PAGE = 1000


def pull(artifact: str, destination: Path, *, progress: Progress | None = None) -> Flow[Path]:
    """Write an artifact's files to a folder that does not exist yet, all or nothing."""
    target = destination.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExistsError(f"{target} is there already", reason="DESTINATION_EXISTS")
    files = yield from list_files(artifact)
    total = sum(file.size_bytes for file in files)
    done = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target) as folder:
        for file in files:
            place = folder.joinpath(*file.path.split("/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as stream:
                yield from _receive(artifact, file, stream.write)
            if file.executable:
                _make_executable(place)
            done += file.size_bytes
            if progress:
                progress(done, total)
        folder.rename(target)
    return target


def read(artifact: str, path: str) -> Flow[bytes]:
    """Return one file's bytes, verified."""
    parts: list[bytes] = []
    yield from _receive(artifact, artifact_pb2.File(path=path), parts.append)
    return b"".join(parts)


def list_files(artifact: str, *, prefix: str = "") -> Flow[Sequence[artifact_pb2.File]]:
    """Return an artifact's files by path, checked against its digest; some if there is a prefix."""
    request = service.ListFilesRequest(artifact=artifact, page_size=_FILES_PER_PAGE)
    wanted = pages(request, service.ListFilesResponse, lambda r: r.files)
    files: list[artifact_pb2.File] = []
    token, more = "", True
    while more:
        page = wanted.page(token)
        found, token = yield from ask(Call(page.request, page.response, page.pick, BYTES_TIMEOUT))
        files += found
        more = bool(token)
    check_paths(file.path for file in files)
    entries = [Entry(f.path, f.executable, f.size_bytes, f.sha256) for f in files]
    if tree_digest(entries) != id_of(artifact):
        raise DataLossError(
            f"the files listed for {artifact} are not those that its digest names",
            reason="CORRUPT_BYTES",
            metadata={"digest": id_of(artifact)},
        )
    return [file for file in files if file.path.startswith(prefix)]


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, so that a rename puts it there at once."""
    folder = target.with_name(f".{target.name[:100]}.partial-{secrets.token_hex(8)}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_executable(place: Path) -> None:
    # Whoever may read it may run it: the user's umask was applied at creation.
    mode = place.stat().st_mode
    place.chmod(mode | (mode & 0o444) >> 2)


class _Sink:
    """Takes a file's messages and hands its bytes on, counted and hashed."""

    def __init__(self, file: artifact_pb2.File, write: Callable[[bytes], object]) -> None:
        self.file = file
        self.received = 0
        self._write = write
        self._hash = hashlib.sha256()

    def take(self, message: service.ReadFileResponse) -> None:
        """Take one message of the stream."""
        if message.HasField("file") and not self.file.sha256:
            self.file = message.file
        if message.data:
            self._write(message.data)
            self._hash.update(message.data)
            self.received += len(message.data)

    @property
    def complete(self) -> bool:
        """Whether all bytes of a known file are here."""
        return bool(self.file.sha256) and self.received == self.file.size_bytes

    def check(self) -> None:
        """Refuse what is not the file that was asked for."""
        if not self.complete or self._hash.hexdigest() != self.file.sha256:
            raise DataLossError(
                f"{self.file.path} did not arrive as it was stored",
                reason="CORRUPT_BYTES",
                metadata={"digest": self.file.sha256, "path": self.file.path},
            )


def _receive(
    artifact: str, file: artifact_pb2.File, write: Callable[[bytes], object]
) -> Flow[None]:
    """Read a file, going on where a broken connection left off."""
    sink = _Sink(file, write)
    failures = 0
    while True:
        before = sink.received
        request = service.ReadFileRequest(artifact=artifact, path=file.path, offset_bytes=before)
        try:
            yield Download(request, service.ReadFileResponse, sink.take)
        except UnavailableError:
            failures = 1 if sink.received > before else failures + 1
            if sink.complete:
                break
            if failures >= ATTEMPTS:
                raise
            yield Pause(0.2 * 2**failures)
        else:
            break
    sink.check()
