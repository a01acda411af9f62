"""Committing files: chunks named in order become a file once its digest was seen to be true."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from services.artifact import store
from services.artifact.domain import (
    ChunkRef,
    FileRecipe,
    Lease,
    RecipePart,
    StoredFile,
    bytes_missing,
    check_digests,
    digest_mismatch,
)
from services.artifact.reading import ContentReader, Located
from services.artifact.storage.packs import CorruptChunkError
from services.artifact.transfers import store as grant_store
from services.common.errors import Reason, ServiceError
from services.common.sql.database import Database, Transaction

if TYPE_CHECKING:
    from hashlib import _Hash

_EMPTY = hashlib.sha256(b"").digest()


class FileCommitter:
    """Make files of stored chunks."""

    def __init__(
        self,
        *,
        database: Database,
        content: ContentReader,
        threads: Executor,
        clock: Callable[[], datetime],
        lease: Lease,
    ) -> None:
        self._database = database
        self._content = content
        self._threads = threads
        self._clock = clock
        self._lease = lease

    async def commit_parts(self, parts: AsyncIterator[RecipePart], *, caller: str) -> None:
        """Verify one file and record it, its chunks being read as they are named.

        Raises:
            ServiceError: BYTES_MISSING, DIGEST_MISMATCH, CORRUPT_BYTES.
        """
        chunks: list[bytes] = []
        state: _Hash | None = hashlib.sha256()
        part = RecipePart("", (), b"", 0)
        async for part in parts:
            chunks += part.chunks
            if state is not None and not await self._hash_part(state, part):
                state = None
        check_digests([part.digest], "digest")
        recipe = FileRecipe(part.digest, part.size, tuple(chunks))
        seen = state.digest() if state is not None else b""
        await self.commit(part.project, [recipe], caller=caller, seen=seen)

    async def _hash_part(self, state: _Hash, part: RecipePart) -> bool:
        """Hash the next chunks of a file; False when that is left to the end of it."""
        recipe = FileRecipe(b"", 0, part.chunks)
        known = await self._database.read(lambda tx: _known(tx, part.project, [recipe], ""))
        if known.claimants or any(chunk not in known.refs for chunk in part.chunks):
            return False
        lengths = tuple(known.refs[chunk].length for chunk in part.chunks)
        file = StoredFile(b"", sum(lengths), part.chunks, lengths)
        return await self._hash(part.project, file, state)

    async def commit(
        self, project: str, recipes: Sequence[FileRecipe], *, caller: str, seen: bytes = b""
    ) -> None:
        """Verify files and record them, all of them or none.

        Files of chunks that the caller put into storage without us are taken at the caller's
        word, and are nobody else's until they were read over in the background. `seen` is the
        digest of the one file when its chunks were just read.

        Raises:
            ServiceError: BYTES_MISSING, DIGEST_MISMATCH, CORRUPT_BYTES.
        """
        known = await self._database.read(lambda tx: _known(tx, project, recipes, caller))
        await self._lease_again(project, list(known.sizes), caller)
        verified: dict[bytes, StoredFile] = {}
        claimed: dict[bytes, StoredFile] = {}
        for recipe in recipes:
            if recipe.digest in known.sizes:
                _check_size(recipe, known.sizes[recipe.digest])
                continue
            file = _resolve(recipe, known.refs)
            whose = {known.claimants[chunk] for chunk in file.chunks if chunk in known.claimants}
            if whose == {caller}:
                claimed[file.digest] = file
            else:
                verified[file.digest] = await self._verified(
                    project, file, doubtful=bool(whose), seen=seen
                )
        granted = self._lease.granted(self._clock())

        def add(tx: Transaction) -> None:
            for files, claimant in ((verified, ""), (claimed, caller)):
                new = list(files.values())
                if new:
                    store.add_files(tx.connection, project, new, lease=granted, claimant=claimant)

        if verified or claimed:
            await self._database.write(add)

    async def _lease_again(self, project: str, files: Sequence[bytes], caller: str) -> None:
        """Lease files that were committed before, so that none goes until it is listed."""
        now = self._clock()
        promised, granted = self._lease.promised(now), self._lease.granted(now)

        def find(tx: Transaction) -> dict[bytes, datetime]:
            return store.file_leases(tx.connection, project, files, caller=caller)

        def lease(tx: Transaction) -> dict[bytes, datetime]:
            store.extend_leases(tx.connection, project, files=files, chunks=(), until=granted)
            return find(tx)

        if not files:
            return
        leased = await self._database.read(find)
        if len(leased) < len(files) or min(leased.values()) < promised:
            leased = await self._database.write(lease)
        for digest in files:
            if digest not in leased:
                raise bytes_missing(digest)

    async def _verified(
        self, project: str, file: StoredFile, *, doubtful: bool, seen: bytes
    ) -> StoredFile:
        """Return a file whose bytes have its digest.

        A file of one chunk was hashed when that came in: it is the chunk's digest. Where a chunk
        is somebody's word, each is read; what is wrong then counts as missing.
        """
        if doubtful:
            await self._check_chunks(project, file)
        if len(file.chunks) > 1:
            digest = seen or await self._digest(project, file)
        else:
            digest = file.chunks[0] if file.chunks else _EMPTY
        if digest == file.digest:
            return file
        # Reading it once more, chunk by chunk, tells damage here from a wrong declaration there.
        async for _ in self._content.read(project, Located(file, 0, {})):
            pass
        raise digest_mismatch(file.digest, "the chunks named do not make this file")

    async def _check_chunks(self, project: str, file: StoredFile) -> None:
        try:
            async for _ in self._content.read(project, Located(file, 0, {})):
                pass
        except ServiceError as error:
            if error.reason is not Reason.CORRUPT_BYTES:
                raise
            raise bytes_missing(bytes.fromhex(error.metadata["digest"])) from error

    async def _digest(self, project: str, file: StoredFile) -> bytes:
        state = hashlib.sha256()
        return state.digest() if await self._hash(project, file, state) else b""

    async def _hash(self, project: str, file: StoredFile, state: _Hash) -> bool:
        """Hash what is stored of a file; False when some of it cannot be read."""
        loop = asyncio.get_running_loop()
        try:
            async for data in self._content.read_unverified(project, file):
                await loop.run_in_executor(self._threads, state.update, data)
        except CorruptChunkError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class _Known:
    """What is stored of some files."""

    sizes: dict[bytes, int]
    """Of those that are committed."""
    refs: dict[bytes, ChunkRef]
    """Where the chunks of the others lie."""
    claimants: dict[bytes, str]
    """Whose word it is what those are, where it is anyone's."""


def _known(tx: Transaction, project: str, recipes: Sequence[FileRecipe], caller: str) -> _Known:
    wanted = [recipe.digest for recipe in recipes]
    sizes = store.file_sizes(tx.connection, project, wanted, caller=caller)
    chunks = list({c for recipe in recipes if recipe.digest not in sizes for c in recipe.chunks})
    refs = store.find_chunks(tx.connection, project, chunks)
    return _Known(sizes, refs, grant_store.claimants(tx.connection, project, chunks))


def _resolve(recipe: FileRecipe, refs: dict[bytes, ChunkRef]) -> StoredFile:
    for digest in recipe.chunks:
        if digest not in refs:
            raise bytes_missing(digest)
    lengths = tuple(refs[digest].length for digest in recipe.chunks)
    _check_size(recipe, sum(lengths))
    return StoredFile(recipe.digest, recipe.size, recipe.chunks, lengths)


def _check_size(recipe: FileRecipe, size: int) -> None:
    if recipe.size != size:
        problem = f"it was declared with {recipe.size} bytes and has {size}"
        raise digest_mismatch(recipe.digest, problem)
