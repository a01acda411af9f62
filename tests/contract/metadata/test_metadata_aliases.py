"""Aliases: moved by compare-and-set, every move kept."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from modelyard.metadata.v1 import alias_pb2, version_pb2
from modelyard.metadata.v1 import model_service_pb2 as pb

from tests.contract.metadata.desk import ABSENT, MODEL, PROJECT, Desk

NAME = f"{MODEL}/aliases/champion"
WRITERS = 8


def version(number: int) -> str:
    return f"{MODEL}/versions/{number}"


def moving(number: int, *, etag: str = "", **fields: Any) -> pb.UpdateAliasRequest:
    alias = alias_pb2.Alias(name=NAME, version=version(number), etag=etag)
    return pb.UpdateAliasRequest(alias=alias, **fields)


async def changes(desk: Desk, parent: str = NAME, *, size: int = 0) -> list[alias_pb2.AliasChange]:
    found: list[alias_pb2.AliasChange] = []
    request = pb.ListAliasChangesRequest(parent=parent, page_size=size)
    while True:
        page = await desk.call(desk.models.ListAliasChanges, request)
        found += page.alias_changes
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def get(desk: Desk, **fields: Any) -> alias_pb2.Alias:
    request = pb.GetAliasRequest(name=NAME, **fields)
    found: alias_pb2.Alias = (await desk.call(desk.models.GetAlias, request)).alias
    return found


async def test_moves_are_conditional_and_recorded(admin: Desk, artifact: str) -> None:
    for _ in range(3):
        await admin.new_version(artifact)
    move = admin.models.UpdateAlias
    first = (await admin.call(move, moving(1, expected_version="", reason="why not"))).alias
    assert (first.version, await get(admin)) == (version(1), first)
    moved = await admin.refusal(move, moving(2, expected_version=""))
    assert moved[:2] == (grpc.StatusCode.ABORTED, "ALIAS_MOVED")
    assert moved[2] == {"resource": NAME, "version": version(1)}
    second = (await admin.call(move, moving(2, expected_version=version(1)))).alias
    stale = await admin.refusal(move, moving(3, etag=first.etag))
    assert stale[:2] == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert stale[2]["etag"] == second.etag
    await admin.call(move, moving(3, etag=second.etag))
    await admin.call(move, moving(3))
    history = await changes(admin, size=1)
    pairs = [(change.old_version, change.new_version) for change in history]
    assert pairs == [(version(2), version(3)), (version(1), version(2)), ("", version(1))]
    assert (history[-1].actor, history[-1].reason) == ("user:admin", "why not")
    assert (await get(admin, as_of=second.update_time)).version == version(2)
    assert (await get(admin, as_of=first.update_time)) == first
    before = pb.GetAliasRequest(name=NAME, as_of=Timestamp(seconds=1))
    assert (await admin.refused(admin.models.GetAlias, before))[1] == "RESOURCE_NOT_FOUND"
    nonsense = pb.GetAliasRequest(name=NAME, as_of=Timestamp(seconds=2**62))
    assert (await admin.refused(admin.models.GetAlias, nonsense))[1] == "INVALID_FIELD"


async def test_concurrent_moves_make_one_chain(admin: Desk, artifact: str) -> None:
    await asyncio.gather(*(admin.new_version(artifact) for _ in range(WRITERS)))

    async def climb(number: int) -> None:
        while True:
            at = await changes(admin)
            expected = at[0].new_version if at else ""
            move = moving(number, expected_version=expected)
            try:
                await admin.call(admin.models.UpdateAlias, move)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED:
                    raise
            else:
                return

    await asyncio.gather(*(climb(number) for number in range(1, WRITERS + 1)))
    history = (await changes(admin))[::-1]
    assert sorted(change.new_version for change in history) == [
        version(number) for number in range(1, WRITERS + 1)
    ]
    assert [change.old_version for change in history] == [
        "",
        *(change.new_version for change in history[:-1]),
    ]
    times = [change.change_time.ToNanoseconds() for change in history]
    assert times == sorted(set(times))
    assert (await get(admin)).version == history[-1].new_version


async def test_deleted_aliases_leave_their_history(admin: Desk, artifact: str) -> None:
    made = await admin.new_version(artifact, aliases=("champion", "beta"))
    page = await admin.call(admin.models.ListAliases, pb.ListAliasesRequest(parent=MODEL))
    assert [alias.name for alias in page.aliases] == [f"{MODEL}/aliases/beta", NAME]
    stale = pb.DeleteAliasRequest(name=NAME, etag="0")
    assert (await admin.refused(admin.models.DeleteAlias, stale))[1] == "ETAG_MISMATCH"
    request = pb.DeleteAliasRequest(name=NAME, etag=page.aliases[1].etag, reason="retired")
    await admin.call(admin.models.DeleteAlias, request)
    assert (await admin.refused(admin.models.DeleteAlias, request))[1] == "RESOURCE_NOT_FOUND"
    gone = pb.GetAliasRequest(name=NAME)
    assert (await admin.refused(admin.models.GetAlias, gone))[1] == "RESOURCE_NOT_FOUND"
    newest = (await changes(admin))[0]
    assert (newest.old_version, newest.new_version, newest.reason) == (made.name, "", "retired")
    assert (await get(admin, as_of=page.aliases[1].update_time)).version == made.name
    again = (await admin.call(admin.models.UpdateAlias, moving(1, expected_version=""))).alias
    assert again.etag != page.aliases[1].etag
    assert len(await changes(admin, f"{MODEL}/aliases/-")) == 4


async def test_aliases_point_to_ready_versions_of_their_model(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    failing = pb.CreateVersionRequest(parent=MODEL, version=version_pb2.Version(artifact=ABSENT))
    await admin.refused(admin.models.CreateVersion, failing)
    move = admin.models.UpdateAlias
    assert await admin.refused(move, moving(2)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_STATE",
    )
    assert (await admin.refused(move, moving(9)))[1] == "RESOURCE_NOT_FOUND"
    foreign = alias_pb2.Alias(name=NAME, version=f"{PROJECT}/models/other/versions/1")
    request = pb.UpdateAliasRequest(alias=foreign)
    assert (await admin.refused(move, request))[1] == "INVALID_FIELD"
    assert (await admin.refused(move, moving(1, reason="x" * 1_001)))[1] == "INVALID_FIELD"
