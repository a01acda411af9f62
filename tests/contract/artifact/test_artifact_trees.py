"""Trees go in and come out as they were; what is there is not sent again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import grpc
import pytest
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import artifact_service_pb2 as pb

from tests.contract.artifact.conftest import Start
from tests.contract.artifact.yard import MIB, Content, Yard, manifest_of, noise, pieces, reason, sha

BIG = noise(1, 5 * MIB + 12_345)
TREE = {
    "model/weights.bin": Content(BIG),
    "model/empty": Content(b""),
    "model/empty-too": Content(b""),
    "run.sh": Content(b"#!/bin/sh\n", executable=True),
    "naïve/模型-😀.json": Content(b"{}"),
    "naïve/\uff5e.json": Content(b"[]"),
    '"quoted" %2e%2e%2f name': Content(b"literal"),
}


async def test_tree_comes_back_as_it_was(yard: Yard) -> None:
    artifact = await yard.push(TREE)
    assert artifact.name == f"projects/alpha/artifacts/{sha(manifest_of(TREE)).hex()}"
    assert artifact.file_count == len(TREE)
    assert artifact.size_bytes == sum(len(content.data) for content in TREE.values())
    assert artifact.creator == "user:alpha"
    assert await yard.pull(artifact.name) == TREE
    request = pb.GetArtifactRequest(name=artifact.name)
    assert (await yard.stub.GetArtifact(request, metadata=yard.metadata)).artifact == artifact


async def test_empty_tree(yard: Yard) -> None:
    artifact = await yard.push({})
    assert artifact.name.endswith(sha(b"[]").hex())
    assert artifact.file_count == 0
    assert await yard.files(artifact.name) == []


async def test_digest_does_not_depend_on_chunking(yard: Yard) -> None:
    tree = {"weights": Content(BIG)}
    first = await yard.push(tree)
    other = await yard.push(tree | {"more": Content(BIG[:-1])}, size=100_000)
    assert await yard.push(tree) == first
    assert await yard.read(other.name, "more") == BIG[:-1]


async def test_second_push_sends_nothing(yard: Yard) -> None:
    first = await yard.push(TREE)
    sent = yard.sent
    assert await yard.push(TREE) == first
    assert yard.sent == sent
    changed = TREE | {"model/weights.bin": Content(BIG[: 5 * MIB] + b"changed")}
    await yard.push(changed)
    assert yard.sent - sent < 10_000


async def test_stored_chunks_are_taken_and_dropped(yard: Yard) -> None:
    chunks = [os.urandom(1000) for _ in range(5)]
    assert (await yard.write(chunks))[-1] == 5
    assert (await yard.write([*chunks, *chunks, b"new"]))[-1] == 11
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.write([])
    assert reason(caught.value)[1] == "MALFORMED_REQUEST"


async def test_each_pack_is_acknowledged(yard: Yard) -> None:
    block = noise(2, MIB - 8)
    chunks = [index.to_bytes(8, "big") + block for index in range(14)]
    acknowledged = await yard.write(chunks)
    assert acknowledged == sorted(acknowledged)
    assert acknowledged[-1] == 14
    assert len(acknowledged) >= 3


async def test_chunks_without_digests_are_named(yard: Yard) -> None:
    fresh, zeros = pieces(noise(75, 9 * MIB)), bytes(MIB)
    known = noise(76, 1000)
    await yard.write([known])
    sent = [*fresh[:5], zeros, known, zeros, *fresh[5:], fresh[0]]

    async def messages() -> AsyncIterator[pb.WriteChunksRequest]:
        for number, data in enumerate(sent):
            digest = sha(data) if number % 4 == 3 else b""
            yield pb.WriteChunksRequest(
                parent=yard.parent, chunks=[pb.Chunk(digest=digest, data=data)]
            )

    call = yard.stub.WriteChunks(messages(), metadata=yard.metadata, timeout=60)
    told, named = 0, list[bytes]()
    async for answer in call:
        named += answer.chunk_digests
        told = answer.durable_chunk_count
        assert len(named) == sum(number % 4 != 3 for number in range(told))
    assert told == len(sent)
    assert named == [sha(data) for number, data in enumerate(sent) if number % 4 != 3]
    whole = b"".join(sent)
    chunks = [sha(data) for data in sent]
    await yard.commit(pb.FileRecipe(digest=sha(whole), size_bytes=len(whole), chunk_digests=chunks))
    await yard.push({"whole": Content(whole)})


async def test_what_is_there_is_leased(yard: Yard) -> None:
    await yard.push(TREE)
    answer = await yard.find_missing(
        files=[sha(BIG), b"x" * 32], chunks=[sha(BIG[:MIB]), b"y" * 32]
    )
    assert answer.missing_file_digests == [b"x" * 32]
    assert answer.missing_chunk_digests == [b"y" * 32]
    assert answer.lease_expire_time.seconds > 0


RANGES = [
    (0, 1),
    (0, MIB),
    (1, MIB),
    (MIB - 1, 2),
    (MIB, MIB),
    (3 * MIB + 7, 2 * MIB),
    (len(BIG) - 1, 0),
    (len(BIG) - 5, 100),
    (len(BIG), 0),
    (7, 0),
]


async def test_ranges(yard: Yard) -> None:
    artifact = await yard.push({"big": Content(BIG)}, size=300_000)
    for offset, limit in RANGES:
        expected = BIG[offset : offset + limit] if limit else BIG[offset:]
        read = await yard.read(artifact.name, "big", offset=offset, limit=limit)
        assert read == expected, (offset, limit)


async def test_range_past_the_end(yard: Yard) -> None:
    artifact = await yard.push({"small": Content(b"abc"), "empty": Content(b"")})
    assert await yard.read(artifact.name, "empty") == b""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.read(artifact.name, "small", offset=4)
    code, why, metadata = reason(caught.value)
    assert (code, why) == (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_OUT_OF_RANGE")
    assert metadata == {"size_bytes": "3"}
    for bad in ({"offset": -1}, {"limit": -1}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.read(artifact.name, "small", **bad)
        assert reason(caught.value)[1] == "INVALID_FIELD"


async def test_pages_and_prefix(yard: Yard) -> None:
    tree = {f"d{index % 3}/f{index:03}": Content(b"x") for index in range(25)}
    artifact = await yard.push(tree)
    paths = [file.path for file in await yard.files(artifact.name, page=4)]
    assert paths == sorted(tree)
    some = [file.path for file in await yard.files(artifact.name, prefix="d1/", page=3)]
    assert some == [path for path in sorted(tree) if path.startswith("d1/")]
    request = pb.ListFilesRequest(artifact=artifact.name, page_size=4)
    answer = await yard.stub.ListFiles(request, metadata=yard.metadata)
    request.page_token, request.path_prefix = answer.next_page_token, "d1/"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.stub.ListFiles(request, metadata=yard.metadata)
    assert reason(caught.value)[1] == "INVALID_PAGE_TOKEN"


async def test_order_is_by_utf16_code_units(yard: Yard) -> None:
    # U+1F600 is above U+FF5E as a code point and below it in UTF-16.
    artifact = await yard.push(TREE)
    paths = [file.path for file in await yard.files(artifact.name)]
    assert paths.index("naïve/模型-😀.json") < paths.index("naïve/\uff5e.json")
    assert [f.path for f in await yard.files(artifact.name, prefix="naïve/模", page=1)] == [
        "naïve/模型-😀.json"
    ]


async def test_hold_and_release(yard: Yard) -> None:
    artifact = await yard.push(TREE)
    holder = "projects/alpha/models/churn/versions/7"
    hold = await yard.hold(artifact.name, holder)
    assert (hold.artifact, hold.holder) == (artifact.name, holder)
    assert await yard.hold(artifact.name, holder) == hold
    await yard.release(artifact.name, holder)
    await yard.release(artifact.name, holder)
    again = await yard.hold(artifact.name, holder)
    assert again.create_time.ToNanoseconds() > hold.create_time.ToNanoseconds()


async def test_many_are_held_at_once_but_for_those_missing(yard: Yard) -> None:
    names = [(await yard.push({"a": Content(bytes([number]))})).name for number in range(3)]
    absent = f"projects/alpha/artifacts/{'a' * 64}"
    holders = [f"projects/alpha/models/churn/versions/{number}" for number in range(5)]
    pairs = list(zip([*names, absent, names[0]], holders, strict=True))
    first = await yard.hold(*pairs[0])
    holds = [artifact_pb2.Hold(artifact=name, holder=holder) for name, holder in pairs]
    request = pb.HoldArtifactsRequest(parent="projects/alpha", holds=holds)
    for _ in range(2):
        answer = await yard.stub.HoldArtifacts(request, metadata=yard.metadata, timeout=10)
        assert list(answer.missing) == [holds[3]]
    listed = pb.ListHoldsRequest(artifact=names[0])
    kept = (await yard.stub.ListHolds(listed, metadata=yard.metadata, timeout=10)).holds
    assert [hold.holder for hold in kept] == [holders[0], holders[4]]
    assert kept[0] == first
    request.holds[0].artifact = f"projects/beta/artifacts/{'a' * 64}"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.stub.HoldArtifacts(request, metadata=yard.metadata, timeout=10)
    assert reason(caught.value)[1] == "INVALID_NAME"


async def test_hold_needs_the_whole_artifact(yard: Yard) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await yard.hold(f"projects/alpha/artifacts/{'0' * 64}", "projects/alpha/models/m")
    code, why, metadata = reason(caught.value)
    assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "BYTES_MISSING")
    assert metadata == {"digest": "0" * 64}


async def test_two_writers_of_the_same_content(start: Start) -> None:
    async with start() as one:
        other = Yard(one.stub)
        artifacts = await asyncio.gather(*(client.push(TREE) for client in (one, other) * 3))
        assert all(artifact == artifacts[0] for artifact in artifacts)
        assert await other.pull(artifacts[0].name) == TREE


async def test_other_projects_see_nothing(yard: Yard) -> None:
    artifact = await yard.push(TREE)
    other = Yard(yard.stub, "beta")
    answer = await other.find_missing(files=[sha(BIG)], chunks=[sha(BIG[:MIB])])
    assert answer.missing_file_digests == [sha(BIG)]
    assert answer.missing_chunk_digests == [sha(BIG[:MIB])]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.read(artifact.name, "run.sh")
    assert reason(caught.value)[:2] == (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
    own_name = artifact.name.replace("alpha", "beta")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.read(own_name, "run.sh")
    assert reason(caught.value)[:2] == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.create(artifact.name.rpartition("/")[2])
    assert reason(caught.value)[1] == "BYTES_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await Yard(yard.stub, token="forged").find_missing()
    assert reason(caught.value)[:2] == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIAL")
    assert (await other.push(TREE)).creator == "user:beta"


async def test_commit_by_parts(yard: Yard) -> None:
    """A file is read as its chunks are named; what it is said to be comes last."""
    data = noise(77, 5 * MIB + 7)
    chunks = pieces(data)
    named = [pb.CommitFileRequest(parent=yard.parent, chunk_digests=[sha(c)]) for c in chunks]
    whole = pb.CommitFileRequest(parent=yard.parent, digest=sha(data), size_bytes=len(data))
    other = pb.CommitFileRequest(digest=sha(b"other"), size_bytes=len(data))
    longer = pb.CommitFileRequest(digest=sha(data), size_bytes=len(data) + 1)

    async def refused(*parts: pb.CommitFileRequest) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await yard.commit_file(*parts)
        return reason(caught.value)[1]

    await yard.write(chunks[:3])
    assert await refused(*named, whole) == "BYTES_MISSING"
    await yard.write(chunks[3:])
    assert await refused(*named, other) == "DIGEST_MISMATCH"
    assert await refused(*named, longer) == "DIGEST_MISMATCH"
    assert await refused(*named) == "INVALID_FIELD"
    assert (await yard.find_missing(files=[sha(data)])).missing_file_digests
    for _ in range(2):
        await yard.commit_file(*named, whole)
    artifact = await yard.push({"model.bin": Content(data)})
    assert await yard.read(artifact.name, "model.bin") == data
