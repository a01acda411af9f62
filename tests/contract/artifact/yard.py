"""A small independent client of the artifact service, written from its proto alone."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as pb

from tests.contract.artifact.serving import Stub

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """A file of a tree."""

    data: bytes
    executable: bool = False


Tree = Mapping[str, Content]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def noise(seed: int, size: int) -> bytes:
    """Return bytes that no compression and no deduplication makes smaller."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - bytes for a test


def pieces(data: bytes, size: int = MIB) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def manifest_of(tree: Tree) -> bytes:
    entries = [
        {
            "mode": 0o755 if content.executable else 0o644,
            "path": path,
            "sha256": sha(content.data).hex(),
            "size": len(content.data),
        }
        for path, content in sorted(tree.items(), key=lambda item: item[0].encode("utf-16-be"))
    ]
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()


def recipe(data: bytes, size: int = MIB) -> pb.FileRecipe:
    return pb.FileRecipe(
        digest=sha(data),
        size_bytes=len(data),
        chunk_digests=[sha(piece) for piece in pieces(data, size)],
    )


def reason(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Return the code, reason and metadata of a documented error."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(raw).details[0].Unpack(info)
    return error.code(), info.reason, dict(info.metadata)


class Yard:
    """One project's view of the service."""

    def __init__(self, stub: Stub, project: str = "alpha", *, token: str = "") -> None:
        self.stub = stub
        self.parent = f"projects/{project}"
        self.metadata = (("authorization", f"Bearer {token or project + '-token'}"),)
        self.sent = 0

    async def find_missing(
        self, *, files: Iterable[bytes] = (), chunks: Iterable[bytes] = ()
    ) -> pb.FindMissingResponse:
        request = pb.FindMissingRequest(
            parent=self.parent, file_digests=files, chunk_digests=chunks
        )
        return await self.stub.FindMissing(request, metadata=self.metadata, timeout=10)

    async def write(self, chunks: Sequence[bytes], *, digests: Sequence[bytes] = ()) -> list[int]:
        """Send chunks, one a message; return what was acknowledged."""
        names = digests or [sha(chunk) for chunk in chunks]

        async def messages() -> AsyncIterator[pb.WriteChunksRequest]:
            for index, (digest, data) in enumerate(zip(names, chunks, strict=True)):
                self.sent += len(data)
                yield pb.WriteChunksRequest(
                    parent="" if index else self.parent,
                    chunks=[pb.Chunk(digest=digest, data=data)],
                )

        call = self.stub.WriteChunks(messages(), metadata=self.metadata, timeout=60)
        return [answer.durable_chunk_count async for answer in call]

    async def commit(self, *recipes: pb.FileRecipe) -> None:
        request = pb.CommitFilesRequest(parent=self.parent, recipes=recipes)
        await self.stub.CommitFiles(request, metadata=self.metadata, timeout=60)

    async def commit_file(self, *parts: pb.CommitFileRequest) -> None:
        """Commit one file, part by part."""

        async def messages() -> AsyncIterator[pb.CommitFileRequest]:
            for part in parts:
                yield part

        await self.stub.CommitFile(messages(), metadata=self.metadata, timeout=60)

    async def create(self, digest: str) -> artifact_pb2.Artifact:
        request = pb.CreateArtifactRequest(parent=self.parent, digest=digest)
        answer = await self.stub.CreateArtifact(request, metadata=self.metadata, timeout=30)
        return answer.artifact

    async def push_files(self, contents: Iterable[bytes], *, size: int = MIB) -> None:
        """Send and commit what is missing of some files."""
        by_digest = {sha(data): data for data in contents}
        missing = (await self.find_missing(files=by_digest)).missing_file_digests
        wanted = [by_digest[digest] for digest in missing]
        chunks = {sha(piece): piece for data in wanted for piece in pieces(data, size)}
        absent = (await self.find_missing(chunks=chunks)).missing_chunk_digests
        if absent:
            await self.write([chunks[digest] for digest in absent])
        await self.commit(*(recipe(data, size) for data in wanted))

    async def push(self, tree: Tree, *, size: int = MIB) -> artifact_pb2.Artifact:
        """Push a tree, as any client would."""
        manifest = manifest_of(tree)
        await self.push_files([*(c.data for c in tree.values()), manifest], size=size)
        return await self.create(sha(manifest).hex())

    async def push_manifest(self, manifest: bytes) -> artifact_pb2.Artifact:
        """Push any bytes as a manifest."""
        await self.push_files([manifest])
        return await self.create(sha(manifest).hex())

    async def files(self, name: str, *, prefix: str = "", page: int = 0) -> list[artifact_pb2.File]:
        found: list[artifact_pb2.File] = []
        request = pb.ListFilesRequest(artifact=name, path_prefix=prefix, page_size=page)
        while True:
            answer = await self.stub.ListFiles(request, metadata=self.metadata, timeout=10)
            found += answer.files
            if not answer.next_page_token:
                return found
            request.page_token = answer.next_page_token

    async def read(self, name: str, path: str, *, offset: int = 0, limit: int = 0) -> bytes:
        request = pb.ReadFileRequest(
            artifact=name, path=path, offset_bytes=offset, limit_bytes=limit
        )
        call = self.stub.ReadFile(request, metadata=self.metadata, timeout=60)
        first, *rest = [message async for message in call]
        assert first.file.path == path
        assert not first.data
        assert all(len(message.data) <= MIB and message.data for message in rest)
        return b"".join(message.data for message in rest)

    async def pull(self, name: str) -> dict[str, Content]:
        """Read a whole tree back."""
        return {
            file.path: Content(await self.read(name, file.path), file.executable)
            for file in await self.files(name)
        }

    async def hold(self, name: str, holder: str) -> artifact_pb2.Hold:
        request = pb.HoldArtifactRequest(hold=artifact_pb2.Hold(artifact=name, holder=holder))
        return (await self.stub.HoldArtifact(request, metadata=self.metadata, timeout=10)).hold

    async def release(self, name: str, holder: str) -> None:
        request = pb.ReleaseArtifactRequest(hold=artifact_pb2.Hold(artifact=name, holder=holder))
        await self.stub.ReleaseArtifact(request, metadata=self.metadata, timeout=10)
