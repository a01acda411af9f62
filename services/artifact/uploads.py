"""Uploads: what is missing, chunks into packs, chunks into files.

There is no upload session and no offset: a client that was cut off asks again
what is missing. What a stream had sent before the cut is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.artifact import store
from services.artifact.blobs import BlobStore
from services.artifact.domain import Chunk, Lease, quota_exceeded
from services.artifact.storage import sweep_store
from services.artifact.storage.packs import PackFolder, PackWriter, hash_chunks
from services.common.errors import Reason, ServiceError
from services.common.sql.database import Database, Transaction

_EXPECTED = 200_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChunkMessage:
    """Some chunks for a project."""

    project: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not stored, and until when the rest is leased."""

    files: tuple[bytes, ...]
    chunks: tuple[bytes, ...]
    lease_expire_time: datetime


@dataclass(frozen=True, slots=True)
class Durable:
    """How many chunks of a stream are durable, and the digests newly found out."""

    count: int
    found: tuple[bytes, ...]


class Uploads:
    """Take chunks into packs and say which are missing."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        folder: PackFolder,
        threads: Executor,
        clock: Callable[[], datetime],
        lease: Lease,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._folder = folder
        self._lease = lease
        self._threads = threads
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._absent: dict[tuple[str, bytes], None] = {}

    @property
    def direct(self) -> bool:
        """Whether clients may put bytes into storage themselves."""
        return self._blobs.puts is not None

    async def find_missing(
        self, project: str, *, files: Sequence[bytes], chunks: Sequence[bytes], caller: str
    ) -> Missing:
        """Say which files and chunks a project lacks for a caller, and lease the others."""
        missing = await self._find_missing(project, files=files, chunks=chunks, caller=caller)
        self._expect(project, missing.chunks)
        return missing

    async def _find_missing(
        self, project: str, *, files: Sequence[bytes], chunks: Sequence[bytes], caller: str
    ) -> Missing:
        now = self._clock()
        promised, granted = self._lease.promised(now), self._lease.granted(now)

        def find(tx: Transaction) -> tuple[dict[bytes, datetime], dict[bytes, datetime]]:
            return (
                store.file_leases(tx.connection, project, files, caller=caller),
                store.chunk_leases(tx.connection, project, chunks),
            )

        def lease(tx: Transaction) -> tuple[dict[bytes, datetime], dict[bytes, datetime]]:
            store.extend_leases(tx.connection, project, files=files, chunks=chunks, until=granted)
            return find(tx)

        found_files, found_chunks = await self._database.read(find)
        if any(time < promised for time in (*found_files.values(), *found_chunks.values())):
            found_files, found_chunks = await self._database.write(lease)
        return Missing(
            files=tuple(digest for digest in files if digest not in found_files),
            chunks=tuple(digest for digest in chunks if digest not in found_chunks),
            lease_expire_time=promised,
        )

    def _expect(self, project: str, digests: Sequence[bytes]) -> None:
        """Remember what a client was just told to send, so that it is not looked up once more."""
        self._absent.update(((project, digest), None) for digest in digests)
        while len(self._absent) > _EXPECTED:
            del self._absent[next(iter(self._absent))]

    async def write_chunks(self, messages: AsyncIterator[ChunkMessage]) -> AsyncIterator[Durable]:
        """Store chunks; yield how many of the stream are durable, last of all when all are.

        Raises:
            ServiceError: DIGEST_MISMATCH; LIMIT_EXCEEDED or SERVICE_UNAVAILABLE by the storage.
        """
        stream = _Stream(self)
        receiving = asyncio.create_task(stream.receive(messages))
        receiving.add_done_callback(_see_error)
        try:
            while (news := await stream.news.get()) is not None:
                if isinstance(news, BaseException):
                    raise news
                yield news
        finally:
            receiving.cancel()
            stream.abandon()

    async def fresh(self, project: str, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Return the chunks that are not stored, each once; lease the others."""
        by_digest = {chunk.digest: chunk for chunk in chunks}
        # Each is expected once. Who else stored it meanwhile is seen when the pack is sealed.
        if all((project, digest) in self._absent for digest in by_digest):
            for digest in by_digest:
                del self._absent[project, digest]
            return list(by_digest.values())
        missing = await self._find_missing(project, files=(), chunks=list(by_digest), caller="")
        return [by_digest[digest] for digest in missing.chunks]

    async def store_pack(self, project: str, writer: PackWriter) -> None:
        """Make a pack known, then durable, then its chunks visible.

        Raises:
            ServiceError: LIMIT_EXCEEDED when the project's quota is too small.
        """
        loop = asyncio.get_running_loop()
        name, size, now = writer.pack, writer.size, self._clock()
        if not await self._database.write(
            lambda tx: store.begin_pack(tx.connection, project, name, size, now=now)
        ):
            await loop.run_in_executor(self._threads, writer.discard)
            raise quota_exceeded(project, await self._quota(project))
        try:
            pack = await loop.run_in_executor(self._threads, writer.finish, self._blobs)
        except ServiceError:
            # What did not come to lie there takes none of the project's room.
            now = self._clock()
            await self._database.write(
                lambda tx: sweep_store.give_up_pack(tx.connection, name, now=now)
            )
            raise
        granted = self._lease.granted(self._clock())
        if not await self._database.write(
            lambda tx: store.seal_pack(tx.connection, project, pack, lease=granted)
        ):
            await loop.run_in_executor(self._threads, self._blobs.delete, name)
            message = "the upload took so long that it was given up; send it again"
            raise ServiceError(Reason.SERVICE_UNAVAILABLE, message)

    async def _quota(self, project: str) -> int:
        return await self._database.read(lambda tx: store.find_quota(tx.connection, project))

    def create_pack(self) -> PackWriter:
        """Begin a pack."""
        return self._folder.create()

    def append(
        self, writer: PackWriter, chunks: Sequence[Chunk], *, is_stored: Callable[[bytes], bool]
    ) -> asyncio.Future[list[bytes]]:
        """Hash chunks and append those that are not stored to a pack, in a thread.

        Returns the digests of those that came without.
        """

        def work() -> list[bytes]:
            hashed = hash_chunks(chunks)
            writer.append([chunk for chunk in hashed if not is_stored(chunk.digest)])
            said = zip(chunks, hashed, strict=True)
            return [chunk.digest for before, chunk in said if not before.digest]

        appending = asyncio.get_running_loop().run_in_executor(self._threads, work)
        appending.add_done_callback(_see_error)
        return appending

    def start(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Keep a task alive until it is done, whatever becomes of the call it began in."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_see_error)
        return task

    async def drain(self) -> None:
        """Wait until what was begun is stored."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _see_error(work: asyncio.Future[Any]) -> None:
    """Take note of an error, which is told where it matters."""
    if not work.cancelled():
        work.exception()


class _Stream:
    """One stream of chunks: a pack being filled while the one before is made durable.

    What becomes of it is told by `news`: which chunks are durable, the error that ends it, or
    None after all went well. A client may wait for an acknowledgement before it sends more, so
    neither may hold up the other.
    """

    def __init__(self, uploads: Uploads) -> None:
        self.news: asyncio.Queue[Durable | BaseException | None] = asyncio.Queue()
        self._uploads = uploads
        self._project = ""
        self._writer = uploads.create_pack()
        self._sealed: PackWriter | None = None
        self._received = 0
        self._told = -1
        self._found: list[bytes] = []
        self._appending: asyncio.Future[list[bytes]] | None = None
        self._sealing: asyncio.Task[None] | None = None

    async def receive(self, messages: AsyncIterator[ChunkMessage]) -> None:
        """Take all messages and make them durable."""
        try:
            async for message in messages:
                await self._take(message)
            await self._seal()
            if self._sealing is not None:
                await asyncio.shield(self._sealing)
        except BaseException as error:
            self.news.put_nowait(error)
            raise
        self._tell(Durable(self._received, tuple(self._found)))
        self.news.put_nowait(None)

    async def _take(self, message: ChunkMessage) -> None:
        """Hash the chunks of a message and append those that are not stored yet.

        That goes on in a thread while the next message is received.
        """
        self._project = message.project
        named = [chunk for chunk in message.chunks if chunk.digest]
        fresh = {chunk.digest for chunk in await self._uploads.fresh(message.project, named)}
        stored = {chunk.digest for chunk in named} - fresh
        await self._appended()
        wanted = [chunk for chunk in message.chunks if chunk.digest not in stored]
        if not self._writer.has_room(wanted):
            await self._seal()
        sealed = self._sealed
        self._appending = self._uploads.append(
            self._writer,
            message.chunks,
            is_stored=lambda digest: digest in stored or bool(sealed and sealed.has(digest)),
        )
        self._received += len(message.chunks)

    async def _appended(self) -> None:
        """Wait until what was received lies in the pack."""
        if self._appending is not None:
            self._found += await asyncio.shield(self._appending)
            self._appending = None

    def _tell(self, news: Durable) -> None:
        if news.count > self._told:
            self._told = news.count
            self.news.put_nowait(news)

    def abandon(self) -> None:
        """Keep what was received before the stream was cut, without making its caller wait."""
        if self._appending is not None or self._writer.size:
            salvage = self._salvage(self._writer, self._appending)
            self._uploads.start(asyncio.create_task(salvage))

    async def _seal(self) -> None:
        await self._appended()
        if self._sealing is not None:
            await asyncio.shield(self._sealing)
        if self._writer.size == 0:
            return
        self._sealed, self._writer = self._writer, self._uploads.create_pack()
        news = Durable(self._received, tuple(self._found))
        self._found = []
        task = asyncio.create_task(self._store(self._sealed, news))
        self._sealing = self._uploads.start(task)

    async def _store(self, writer: PackWriter, news: Durable) -> None:
        try:
            await self._uploads.store_pack(self._project, writer)
        except BaseException as error:
            self.news.put_nowait(error)
            raise
        self._tell(news)

    async def _salvage(
        self, writer: PackWriter, appending: asyncio.Future[list[bytes]] | None
    ) -> None:
        if appending is not None:
            await asyncio.wait([appending])
        try:
            if writer.size:
                await self._uploads.store_pack(self._project, writer)
            else:
                writer.discard()
        # Nobody waits for it and nothing was acknowledged: the client sends it again.
        except ServiceError as error:
            _log.info("chunks of a broken upload were not kept: %s", error.reason)
        except Exception:
            _log.exception("chunks of a broken upload were not kept")
