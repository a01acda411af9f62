"""What is not what it says is refused, by its reason, and leaves nothing visible."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as pb

from tests.contract.artifact.yard import MIB, Content, Yard, manifest_of, reason, recipe, sha

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def entry(path: str, **changes: Any) -> dict[str, Any]:
    return {"mode": 0o644, "path": path, "sha256": sha(b"x").hex(), "size": 1} | changes


def encoded(entries: object) -> bytes:
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()


async def refused(yard: Yard, manifest: bytes) -> tuple[str, dict[str, str]]:
    """Push a manifest that must be refused, and see that no artifact came of it."""
    await yard.push_files([b"x"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.push_manifest(manifest)
    code, why, metadata = reason(caught.value)
    assert code is INVALID
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        request = pb.GetArtifactRequest(name=f"{yard.parent}/artifacts/{sha(manifest).hex()}")
        await yard.stub.GetArtifact(request, metadata=yard.metadata)
    assert reason(gone.value)[1] == "RESOURCE_NOT_FOUND"
    return why, metadata


async def test_chunk_with_another_digest(yard: Yard) -> None:
    good, bad = b"good", b"bad"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.write([good, bad], digests=[sha(good), sha(b"other")])
    code, why, metadata = reason(caught.value)
    assert (code, why, metadata["digest"]) == (INVALID, "DIGEST_MISMATCH", sha(b"other").hex())
    answer = await yard.find_missing(chunks=[sha(bad), sha(b"other")])
    assert len(answer.missing_chunk_digests) == 2


async def test_no_chunk_of_a_bad_message_is_kept(yard: Yard) -> None:
    good = pb.Chunk(digest=sha(b"good"), data=b"good")
    bad = pb.Chunk(digest=sha(b"other"), data=b"bad")
    request = pb.WriteChunksRequest(parent=yard.parent, chunks=[good, bad])
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in yard.stub.WriteChunks(iter([request]), metadata=yard.metadata):
            pass
    assert len((await yard.find_missing(chunks=[good.digest])).missing_chunk_digests) == 1


@pytest.mark.parametrize("size", [MIB, 100_000])
async def test_file_with_another_digest_or_size(yard: Yard, size: int) -> None:
    data = bytes(range(256)) * 5_000
    await yard.push_files([data], size=size)
    true = recipe(data, size)
    lies = [
        pb.FileRecipe(digest=sha(b"?"), size_bytes=len(data), chunk_digests=true.chunk_digests),
        pb.FileRecipe(
            digest=sha(b"?"), size_bytes=len(data), chunk_digests=[*true.chunk_digests][::-1]
        ),
        pb.FileRecipe(digest=sha(b"?"), size_bytes=len(data) + 1, chunk_digests=true.chunk_digests),
        pb.FileRecipe(digest=sha(b"?"), size_bytes=len(data) - 1, chunk_digests=true.chunk_digests),
        pb.FileRecipe(digest=true.digest, size_bytes=len(data) - 1),
        pb.FileRecipe(digest=sha(b"?"), size_bytes=-1),
        pb.FileRecipe(digest=sha(b"?"), size_bytes=0),
    ]
    for lie in lies:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.commit(recipe(b""), lie)
        assert reason(caught.value)[:2] == (INVALID, "DIGEST_MISMATCH")
    answer = await yard.find_missing(files=[sha(b"?"), sha(b"")])
    assert len(answer.missing_file_digests) == 2


async def test_missing_bytes(yard: Yard) -> None:
    for call in (
        yard.commit(recipe(b"never sent")),
        yard.create("0" * 64),
        yard.push_manifest(manifest_of({"a": Content(b"never sent")})),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        code, why, metadata = reason(caught.value)
        assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "BYTES_MISSING")
        assert metadata["digest"] in {sha(b"never sent").hex(), "0" * 64}


BAD_PATHS = [
    ["../../etc/passwd"],
    ["/etc/passwd"],
    ["a/../../b"],
    ["a/./b"],
    ["a//b"],
    ["a/"],
    [""],
    ["."],
    [".."],
    ["..\\..\\x"],
    ["C:\\x"],
    ["\\\\srv\\x"],
    ["file:///etc"],
    ["a\nb"],
    ["a\x00b"],
    ["a\x7fb"],
    ["a\x85b"],
    ["cafe\u0301"],
    ["a" * 256],
    ["é" * 128],
    ["d/" * 511 + "ab" + "c"],
    ["x" * 5_000],
    ["same", "same"],
    ["s", "s"],
    ["a", "a/b"],
    ["a/b", "a/b/c"],
    ["README", "readme"],
    ["Dir/a", "dir/b"],
    ["STRASSE", "straße"],
    ["A", "a/b"],
]


async def test_bad_path_is_refused_and_named(yard: Yard) -> None:
    for paths in BAD_PATHS:
        ordered = sorted(paths, key=lambda path: path.encode("utf-16-be"))
        why, metadata = await refused(yard, encoded([entry(path) for path in ordered]))
        assert why == "INVALID_PATH", paths
        assert metadata["path"] in [path[:200] for path in paths]
        assert metadata["problem"]


BAD_MANIFESTS = [
    b"",
    b"{}",
    b"null",
    b"[",
    b"\xff",
    b"[[[[[[",
    b"[" * 100_000,
    b"[ ]",
    b"[]\n",
    encoded([entry("b"), entry("a")]),
    json.dumps([entry("a")]).encode(),
    json.dumps([entry("é")], separators=(",", ":")).encode(),
    encoded([dict(reversed(entry("a").items()))]),
    encoded([entry("a", mode=0o777)]),
    encoded([entry("a", mode="420")]),
    encoded([entry("a", size=-1)]),
    encoded([entry("a", size=2**53)]),
    encoded([entry("a", size=1.5)]),
    encoded([entry("a", size=2)]),
    encoded([entry("a", sha256=sha(b"x").hex().upper())]),
    encoded([entry("a", sha256="sha256:../../x")]),
    encoded([entry("a", more=1)]),
    encoded([{"path": "a"}]),
    b'[{"mode":420,"path":"\\ud800","sha256":"' + sha(b"x").hex().encode() + b'","size":1}]',
]


async def test_bad_manifest_is_refused(yard: Yard) -> None:
    for manifest in BAD_MANIFESTS:
        why, _ = await refused(yard, manifest)
        assert why in {"INVALID_MANIFEST", "INVALID_PATH"}, manifest[:200]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("projects/alpha/artifacts/../../x", "INVALID_NAME"),
        (f"projects/alpha/artifacts/{'A' * 64}", "INVALID_NAME"),
        (f"projects/alpha/artifacts/{'a' * 63}", "INVALID_NAME"),
        (f"projects/alpha/artifacts/{'a' * 64}", "RESOURCE_NOT_FOUND"),
    ],
)
async def test_artifact_names(yard: Yard, name: str, why: str) -> None:
    for call in (yard.read(name, "a"), yard.files(name)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason(caught.value)[1] == why


async def test_read_takes_no_strange_path(yard: Yard) -> None:
    artifact = await yard.push({"a": Content(b"x")})
    for path, why in [
        ("../a", "INVALID_PATH"),
        ("b", "RESOURCE_NOT_FOUND"),
        ("é" * 200_000, "INVALID_PATH"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.read(artifact.name, path)
        assert reason(caught.value)[1] == why


async def test_limits(yard: Yard) -> None:
    async def answer(call: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return reason(caught.value)[1]

    assert await answer(yard.write([b""])) == "INVALID_FIELD"
    assert await answer(yard.write([b"x"], digests=[b"short"])) == "INVALID_FIELD"
    assert await answer(yard.write([bytes(MIB + 1)])) == "LIMIT_EXCEEDED"
    assert await answer(yard.find_missing(files=[b"x"])) == "INVALID_FIELD"
    assert await answer(yard.find_missing(files=[bytes(32)] * 4_097)) == "LIMIT_EXCEEDED"
    assert await answer(yard.commit(*[recipe(b"")] * 1_001)) == "LIMIT_EXCEEDED"
    many = pb.FileRecipe(digest=sha(b""), chunk_digests=[bytes(32)] * 100_001)
    assert await answer(yard.commit(many)) == "LIMIT_EXCEEDED"
    assert await answer(yard.create("A" * 64)) == "INVALID_FIELD"


async def test_holder_belongs_to_the_project(yard: Yard) -> None:
    artifact = await yard.push({})
    for holder in (
        "",
        "projects/beta/models/m",
        "projects/alpha/\n",
        "projects/alpha/" + "a" * 600,
    ):
        hold = artifact_pb2.Hold(artifact=artifact.name, holder=holder)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.stub.HoldArtifact(pb.HoldArtifactRequest(hold=hold), metadata=yard.metadata)
        assert reason(caught.value)[1] == "INVALID_NAME"
