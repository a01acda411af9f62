"""Versions: READY only with their bytes held, numbered once, listed."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import grpc
from modelyard.common.v1 import access_pb2
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import project_service_pb2 as projects_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb
from modelyard.metadata.v1 import version_pb2

from tests.contract.metadata.desk import (
    ABSENT,
    MODEL,
    PROJECT,
    Desk,
    artifacts_running,
    eventually,
)

PENDING = version_pb2.VERSION_STATE_PENDING
READY = version_pb2.VERSION_STATE_READY
FAILED = version_pb2.VERSION_STATE_FAILED
BUILD = f"{PROJECT}/builds/b1"


async def get(desk: Desk, name: str) -> version_pb2.Version:
    answer = await desk.call(desk.models.GetVersion, pb.GetVersionRequest(name=name))
    found: version_pb2.Version = answer.version
    return found


async def resolve(desk: Desk, name: str) -> str:
    answer = await desk.call(desk.models.ResolveVersion, pb.ResolveVersionRequest(name=name))
    found: str = answer.version.name
    return found


async def listed(desk: Desk, *, parent: str = MODEL, **fields: Any) -> list[int]:
    numbers: list[int] = []
    request = pb.ListVersionsRequest(parent=parent, **fields)
    while True:
        page = await desk.call(desk.models.ListVersions, request)
        numbers += [int(version.name.rpartition("/")[2]) for version in page.versions]
        if not page.next_page_token:
            return numbers
        request.page_token = page.next_page_token


async def with_metrics(desk: Desk, artifact: str, **figures: float) -> version_pb2.Version:
    run = await desk.new_run()
    await desk.log(run, **figures)
    return await desk.new_version(artifact, run=run)


async def test_a_version_is_ready_once_its_bytes_are_held(admin: Desk, artifact: str) -> None:
    run = await admin.new_run("first")
    batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
    batch.params["depth"].int_value = 6
    batch.metrics.add(key="f1", steps=[1, 2], times_us=[1, 2], values=[0.5, 0.75])
    await admin.ingest(batch)
    made = await admin.new_version(
        artifact,
        run=run,
        build=BUILD,
        label="1.0.0",
        labels={"team": "risk"},
        environment_digest="e" * 64,
        aliases=("champion", "champion", "candidate"),
    )
    assert (made.name, made.state) == (f"{MODEL}/versions/1", READY)
    assert (made.params["depth"].int_value, dict(made.metrics)) == (6, {"f1": 0.75})
    assert list(made.aliases) == ["candidate", "champion"]
    assert made.ready_time.ToDatetime() >= made.create_time.ToDatetime()
    assert (made.creator, made.tests_passed) == ("user:admin", False)
    assert await get(admin, made.name) == made
    for name in (made.name, f"{MODEL}/aliases/champion", MODEL):
        assert await resolve(admin, name) == made.name
    for name in (f"{MODEL}/versions/2", f"{MODEL}/aliases/none", f"{PROJECT}/models/none"):
        request = pb.ResolveVersionRequest(name=name)
        assert (await admin.refused(admin.models.ResolveVersion, request))[1] == (
            "RESOURCE_NOT_FOUND"
        )


async def test_a_version_without_bytes_fails_and_gives_its_label_back(
    admin: Desk, artifact: str
) -> None:
    request = pb.CreateVersionRequest(
        parent=MODEL, version=version_pb2.Version(artifact=ABSENT, label="1.0.0"), request_id="v"
    )
    missing = (grpc.StatusCode.FAILED_PRECONDITION, "BYTES_MISSING")
    assert await admin.refused(admin.models.CreateVersion, request) == missing
    assert await admin.refused(admin.models.CreateVersion, request) == missing
    failed = await get(admin, f"{MODEL}/versions/1")
    assert (failed.state, failed.failure.reason) == (FAILED, "BYTES_MISSING")
    made = await admin.new_version(artifact, label="1.0.0")
    assert made.name == f"{MODEL}/versions/2"
    taken = pb.CreateVersionRequest(
        parent=MODEL, version=version_pb2.Version(artifact=artifact, label="1.0.0")
    )
    assert await admin.refused(admin.models.CreateVersion, taken) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "RESOURCE_EXISTS",
    )
    # A refused number is not lost: nothing was recorded under it.
    assert (await admin.new_version(artifact)).name == f"{MODEL}/versions/3"
    assert await resolve(admin, MODEL) == f"{MODEL}/versions/3"


async def test_versions_made_together_stand_for_themselves(admin: Desk, artifact: str) -> None:
    """Their bytes are asked for in one call; those that have none refuse nobody else."""
    wanted = [artifact, ABSENT] * 6

    async def create(place: int, digest: str) -> int | tuple[grpc.StatusCode, str]:
        version = version_pb2.Version(artifact=digest)
        request = pb.CreateVersionRequest(parent=f"{MODEL}{place % 3}", version=version)
        if digest == ABSENT:
            return await admin.refused(admin.models.CreateVersion, request)
        answer = await admin.call(admin.models.CreateVersion, request)
        return int(answer.version.state)

    answers = await asyncio.gather(*(create(*item) for item in enumerate(wanted)))
    assert answers == [READY, (grpc.StatusCode.FAILED_PRECONDITION, "BYTES_MISSING")] * 6


async def test_numbers_are_allotted_once(admin: Desk, artifact: str) -> None:
    made = await asyncio.gather(*(admin.new_version(artifact) for _ in range(10)))
    numbers = sorted(int(version.name.rpartition("/")[2]) for version in made)
    assert numbers == list(range(1, 11))
    request = pb.CreateVersionRequest(
        parent=MODEL, version=version_pb2.Version(artifact=artifact), request_id="same"
    )
    answers = await asyncio.gather(
        *(admin.call(admin.models.CreateVersion, request) for _ in range(5))
    )
    assert {answer.version.name for answer in answers} == {f"{MODEL}/versions/11"}
    assert {answer.version.state for answer in answers} == {READY}


async def test_pending_versions_are_finished_when_artifacts_are_back(
    admin: Desk, tmp_path: Path
) -> None:
    data = tmp_path / "artifact"
    async with artifacts_running(admin.house, data):
        artifact = await admin.push()
    made = await admin.new_version(artifact, aliases=("champion",))
    lost = await admin.new_version(ABSENT)
    assert (made.state, list(made.aliases), lost.state) == (PENDING, [], PENDING)
    absent = pb.ResolveVersionRequest(name=MODEL)
    assert (await admin.refused(admin.models.ResolveVersion, absent))[1] == "RESOURCE_NOT_FOUND"

    async def finished() -> bool:
        states = [(await get(admin, name)).state for name in (made.name, lost.name)]
        return PENDING not in states

    async with artifacts_running(admin.house, data):
        await eventually(finished)
    ready = await get(admin, made.name)
    assert (ready.state, list(ready.aliases)) == (READY, ["champion"])
    assert (await get(admin, lost.name)).failure.reason == "BYTES_MISSING"


async def test_only_a_builds_own_delegation_says_that_tests_passed(
    admin: Desk, artifact: str
) -> None:
    version = version_pb2.Version(artifact=artifact, build=BUILD)
    request = pb.CreateVersionRequest(parent=MODEL, version=version, tests_passed=True)
    rights = [access_pb2.RIGHT_READ, access_pb2.RIGHT_WRITE]
    builder = admin.as_caller(admin.house.secret("builder"))
    said: list[bool] = []
    for resource in (BUILD, f"{PROJECT}/builds/other", f"{PROJECT}/models/churn"):
        issue = projects_pb.IssueDelegationRequest(resource=resource, rights=rights)
        issued = (await admin.call(admin.projects.IssueDelegation, issue)).delegation
        renew = projects_pb.RenewDelegationRequest(delegation=issued)
        renewed = (await builder.call(builder.projects.RenewDelegation, renew)).delegation
        for credential in (issued, renewed):  # the second has a service's word for it
            work = admin.as_caller(credential)
            said.append((await work.call(work.models.CreateVersion, request)).version.tests_passed)
    own = (await admin.call(admin.models.CreateVersion, request)).version.tests_passed
    assert (said, own) == ([False, True, False, False, False, False], False)


async def test_lists_are_filtered_and_ordered_by_metrics(admin: Desk, artifact: str) -> None:
    for f1, loss in ((0.5, 3.0), (0.9, math.nan), (0.7, math.inf), (math.nan, -math.inf)):
        await with_metrics(admin, artifact, f1=f1, **{"val/loss": loss})
    await admin.new_version(artifact, label="bare", labels={"team": "risk"})
    other = await admin.new_version(artifact, parent=f"{PROJECT}/models/other")
    assert await listed(admin) == [5, 4, 3, 2, 1]
    assert await listed(admin, page_size=2) == [5, 4, 3, 2, 1]
    # NaN and no value come last, whichever way; equals follow the order's direction.
    assert await listed(admin, order_by="metrics.f1 desc") == [2, 3, 1, 5, 4]
    assert await listed(admin, order_by="metrics.f1 desc", page_size=1) == [2, 3, 1, 5, 4]
    assert await listed(admin, order_by="metrics.f1", page_size=2) == [1, 3, 2, 4, 5]
    by_loss = 'metrics["val/loss"]'
    assert await listed(admin, order_by=f"{by_loss} desc", page_size=1) == [3, 1, 4, 5, 2]
    assert await listed(admin, filter="metrics.f1 > 0.6") == [3, 2]
    assert await listed(admin, filter="NOT metrics.f1 > 0.6") == [5, 4, 1]
    assert await listed(admin, filter=f"{by_loss} >= 3 AND metrics.f1 < 1") == [3, 1]
    assert await listed(admin, filter='label = "bare" OR number = 2') == [5, 2]
    assert await listed(admin, filter='state = READY AND labels.team = "risk"') == [5]
    assert len(await listed(admin, parent=f"{PROJECT}/models/-")) == 6
    assert other.name.endswith("other/versions/1")
    request = pb.ListVersionsRequest(parent=MODEL, order_by="nonsense desc")
    assert (await admin.refused(admin.models.ListVersions, request))[1] == "INVALID_ORDER"


async def test_what_a_version_names_is_checked(admin: Desk, artifact: str) -> None:
    odd: list[tuple[dict[str, Any], str]] = [
        ({"artifact": ""}, "INVALID_NAME"),
        ({"artifact": f"projects/other/artifacts/{'0' * 64}"}, "INVALID_FIELD"),
        ({"run": f"{PROJECT}/models/other/runs/r"}, "INVALID_FIELD"),
        ({"run": f"{MODEL}/runs/none"}, "RESOURCE_NOT_FOUND"),
        ({"build": "projects/other/builds/b"}, "INVALID_FIELD"),
        ({"environment_digest": "xyz"}, "INVALID_FIELD"),
        ({"label": "x" * 129}, "INVALID_FIELD"),
        ({"label": "a\0"}, "INVALID_FIELD"),
    ]
    for fields, wanted in odd:
        version = version_pb2.Version(**({"artifact": artifact} | fields))
        request = pb.CreateVersionRequest(parent=MODEL, version=version)
        assert (await admin.refused(admin.models.CreateVersion, request))[1] == wanted, fields
    for number in (2**63, 9_999_999_999_999_999_999):
        get = pb.GetVersionRequest(name=f"{MODEL}/versions/{number}")
        assert (await admin.refused(admin.models.GetVersion, get))[1] == "INVALID_NAME"
