"""Committing files: chunks named in order become a file once its digest was seen to be true."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from datetime import datetime

from services.artifact import store
from services.artifact.domain import (
    ChunkRef,
    FileRecipe,
    Lease,
    StoredFile,
    bytes_missing,
    digest_mismatch,
)
from services.artifact.packs import CorruptChunkError
from services.artifact.reading import ContentReader, Located
from services.common.database import Database, Transaction

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

    async def commit(self, project: str, recipes: Sequence[FileRecipe]) -> None:
        """Verify files and record them, all of them or none.

        Raises:
            ServiceError: BYTES_MISSING, DIGEST_MISMATCH, CORRUPT_BYTES.
        """
        sizes, refs = await self._database.read(lambda tx: _known(tx, project, recipes))
        await self._lease_again(project, list(sizes))
        files: dict[bytes, StoredFile] = {}
        for recipe in recipes:
            if recipe.digest in sizes:
                _check_size(recipe, sizes[recipe.digest])
            else:
                files[recipe.digest] = await self._verified(project, _resolve(recipe, refs))
        if files:
            granted = self._lease.granted(self._clock())
            new = list(files.values())
            await self._database.write(
                lambda tx: store.add_files(tx.connection, project, new, lease=granted)
            )

    async def _lease_again(self, project: str, files: Sequence[bytes]) -> None:
        """Lease files that were committed before, so that none goes until it is listed."""
        now = self._clock()
        promised, granted = self._lease.promised(now), self._lease.granted(now)

        def find(tx: Transaction) -> dict[bytes, datetime]:
            return store.file_leases(tx.connection, project, files)

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

    async def _verified(self, project: str, file: StoredFile) -> StoredFile:
        """Return a file whose bytes have its digest.

        A file of one chunk was hashed when that came in: it is the chunk's digest.
        """
        if len(file.chunks) > 1:
            digest = await self._hash(project, file)
        else:
            digest = file.chunks[0] if file.chunks else _EMPTY
        if digest == file.digest:
            return file
        # Reading it once more, chunk by chunk, tells damage here from a wrong declaration there.
        async for _ in self._content.read(project, Located(file, 0, {})):
            pass
        raise digest_mismatch(file.digest, "the chunks named do not make this file")

    async def _hash(self, project: str, file: StoredFile) -> bytes:
        loop = asyncio.get_running_loop()
        state = hashlib.sha256()
        try:
            async for data in self._content.read_unverified(project, file):
                await loop.run_in_executor(self._threads, state.update, data)
        except CorruptChunkError:
            return b""
        return state.digest()


def _known(
    tx: Transaction, project: str, recipes: Sequence[FileRecipe]
) -> tuple[dict[bytes, int], dict[bytes, ChunkRef]]:
    """Return the sizes of what is committed already, and where the chunks of the rest lie."""
    wanted = [recipe.digest for recipe in recipes]
    sizes = store.file_sizes(tx.connection, project, wanted)
    chunks = {chunk for recipe in recipes if recipe.digest not in sizes for chunk in recipe.chunks}
    return sizes, store.find_chunks(tx.connection, project, list(chunks))


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
