"""A pull from a server that lies writes nothing outside, and nothing at all in the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from modelyard import Client, DataLossError, InvalidArgumentError
from modelyard._transfers.tree import Entry, tree_digest
from modelyard.artifact.v1 import (
    artifact_pb2,
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    transfer_service_pb2_grpc,
)
from modelyard.artifact.v1 import transfer_service_pb2 as transfer

Connect = Callable[[Callable[[grpc.Server], None]], Client]
DATA = b"the bytes that were stored"
NOWHERE = transfer.Grant(method="GET", url="http://127.0.0.1:9/packs/0")


class Liar(
    artifact_service_pb2_grpc.ArtifactServiceServicer,
    transfer_service_pb2_grpc.TransferServiceServicer,
):
    """Lists one file and sends other bytes than it says."""

    is_endless = False

    def __init__(self, path: str, sent: bytes, *, true: bytes = DATA) -> None:
        self._sent = sent
        self.places = transfer.GrantReadsResponse()
        sha256 = hashlib.sha256(true).hexdigest()
        self._file = artifact_pb2.File(path=path, size_bytes=len(true), sha256=sha256)
        self.digest = tree_digest([Entry(path, False, len(true), sha256)])

    def ListFiles(
        self,
        request: artifact_service_pb2.ListFilesRequest,
        context: grpc.ServicerContext,
    ) -> artifact_service_pb2.ListFilesResponse:
        if not self.is_endless:
            return artifact_service_pb2.ListFilesResponse(files=[self._file])
        files = [artifact_pb2.File(path=f"{self._file.path}{n}") for n in range(20_000)]
        return artifact_service_pb2.ListFilesResponse(files=files, next_page_token="more")

    def ReadFile(
        self,
        request: artifact_service_pb2.ReadFileRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[artifact_service_pb2.ReadFileResponse]:
        yield artifact_service_pb2.ReadFileResponse(file=self._file)
        end = request.offset_bytes + request.limit_bytes
        for at in range(request.offset_bytes, end, 2**20):
            data = self._sent[at : min(at + 2**20, end)]
            yield artifact_service_pb2.ReadFileResponse(data=data)

    def ReadFiles(
        self,
        request: artifact_service_pb2.ReadFilesRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[artifact_service_pb2.ReadFilesResponse]:
        content = artifact_service_pb2.FileContent(path=self._file.path, data=self._sent)
        yield artifact_service_pb2.ReadFilesResponse(files=[content])

    def GrantReads(
        self, request: transfer.GrantReadsRequest, context: grpc.ServicerContext
    ) -> transfer.GrantReadsResponse:
        return self.places

    def ReadRecipe(
        self,
        request: artifact_service_pb2.ReadRecipeRequest,
        context: grpc.ServicerContext,
    ) -> Iterator[artifact_service_pb2.ReadRecipeResponse]:
        """Name the chunks of what is sent: that fits together, but not with the file's digest."""
        while self.is_endless:
            many = artifact_service_pb2.ReadRecipeResponse(chunk_digests=[bytes(32)] * 50_000)
            yield many
        chunks = [self._sent[at : at + 2**20] for at in range(0, len(self._sent), 2**20)]
        yield artifact_service_pb2.ReadRecipeResponse(file=self._file)
        yield artifact_service_pb2.ReadRecipeResponse(
            chunk_digests=[hashlib.sha256(chunk).digest() for chunk in chunks],
            chunk_sizes=[len(chunk) for chunk in chunks],
        )


def serve(connect: Connect, liar: Liar) -> Client:
    def add(server: grpc.Server) -> None:
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(liar, server)
        transfer_service_pb2_grpc.add_TransferServiceServicer_to_server(liar, server)

    return connect(add)


def test_the_truth_is_taken(connect: Connect, tmp_path: Path) -> None:
    liar = Liar("a/b", DATA)
    serve(connect, liar).artifacts.pull(liar.digest, tmp_path / "out")
    assert (tmp_path / "out/a/b").read_bytes() == DATA


@pytest.mark.parametrize("path", ["../escaped", "/tmp/escaped", "a/../../escaped", "C:\\escaped"])  # noqa: S108
def test_no_path_leads_outside(path: str, connect: Connect, tmp_path: Path) -> None:
    liar = Liar(path, DATA)
    with pytest.raises(InvalidArgumentError) as caught:
        serve(connect, liar).artifacts.pull(liar.digest, tmp_path / "inner/out")
    assert caught.value.reason == "INVALID_PATH"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [b"x" * len(DATA), DATA[:-1], DATA + b"!", b""])
def test_bytes_must_have_their_digest(sent: bytes, connect: Connect, tmp_path: Path) -> None:
    liar = Liar("a", sent)
    client = serve(connect, liar)
    with pytest.raises(DataLossError):
        client.artifacts.pull(liar.digest, tmp_path / "out")
    with pytest.raises(DataLossError):
        client.artifacts.read(liar.digest, "a")
    assert list(tmp_path.iterdir()) == []


def test_the_list_must_have_the_artifacts_digest(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(DataLossError, match="digest"):
        serve(connect, Liar("a", DATA)).artifacts.pull("ab" * 32, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def places(*chunks: transfer.ChunkPlace) -> transfer.GrantReadsResponse:
    return transfer.GrantReadsResponse(files=[transfer.FileChunks(chunks=chunks)], grants=[NOWHERE])


@pytest.mark.parametrize(
    "said",
    [
        transfer.GrantReadsResponse(),
        transfer.GrantReadsResponse(files=[transfer.FileChunks()]),
        places(transfer.ChunkPlace(length_bytes=5)),
        places(*[transfer.ChunkPlace(length_bytes=2**20, offset_bytes=7)] * 5),
        places(transfer.ChunkPlace(length_bytes=5 * 2**20)),
        places(transfer.ChunkPlace(length_bytes=-5)),
        places(transfer.ChunkPlace(length_bytes=5, offset_bytes=-1)),
        places(transfer.ChunkPlace(length_bytes=5, grant_index=1)),
        places(transfer.ChunkPlace(length_bytes=5, grant_index=-1)),
    ],
)
def test_a_large_file_must_have_its_digest_whatever_its_chunks_have(
    said: transfer.GrantReadsResponse, connect: Connect, tmp_path: Path
) -> None:
    true = bytes(5 * 2**20)
    liar = Liar("a", b"x" + true[1:], true=true)
    liar.places = said
    client = serve(connect, liar)
    with pytest.raises(DataLossError):
        client.artifacts.pull(liar.digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert all(path.stat().st_size == 0 for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(DataLossError):
        client.artifacts.read(liar.digest, "a")


def test_what_has_no_end_is_not_listened_to(connect: Connect, tmp_path: Path) -> None:
    liar = Liar("a", DATA)
    liar.is_endless = True
    client = serve(connect, liar)
    with pytest.raises((DataLossError, InvalidArgumentError)):
        client.artifacts.pull(liar.digest, tmp_path / "out")
    with pytest.raises(DataLossError):
        client.artifacts.read(liar.digest, "a")
