"""Versions after they came to be: edited, evaluated, archived, deleted, restored, purged."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from modelyard.metadata.v1 import (
    alias_pb2,
    evaluation_pb2,
    model_pb2,
    project_pb2,
    token_pb2,
    version_pb2,
    version_use_pb2,
)
from modelyard.metadata.v1 import lineage_service_pb2 as lineage_pb
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import project_service_pb2 as projects_pb

from tests.contract.metadata.desk import MODEL, PROJECT, Desk

ONE = f"{MODEL}/versions/1"
ALIAS = f"{MODEL}/aliases/production"
USER = f"{PROJECT}/environments/production/deployments/churn"
IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "RESOURCE_IN_USE")
CREATORS = 64
WRITERS = 16


async def get(desk: Desk, name: str = ONE) -> version_pb2.Version:
    found: version_pb2.Version = (
        await desk.call(desk.models.GetVersion, pb.GetVersionRequest(name=name))
    ).version
    return found


async def point(desk: Desk, version: str = ONE, name: str = ALIAS) -> None:
    alias = alias_pb2.Alias(name=name, version=version)
    await desk.call(desk.models.UpdateAlias, pb.UpdateAliasRequest(alias=alias))


async def test_only_words_about_a_version_change(admin: Desk, artifact: str) -> None:
    image = f"registry.example/churn@sha256:{'0' * 64}"
    made = await admin.new_version(
        artifact, card="# Old", license="MIT", label="1.0.0", image=image
    )
    assert made.image == image
    wanted = version_pb2.Version(
        name=made.name, card="# New", labels={"team": "risk"}, description="d", etag=made.etag
    )
    request = pb.UpdateVersionRequest(
        version=wanted, update_mask=FieldMask(paths=["card", "labels"])
    )
    changed = (await admin.call(admin.models.UpdateVersion, request)).version
    assert (changed.card, changed.license, changed.description) == ("# New", "MIT", "")
    assert dict(changed.labels) == {"team": "risk"}
    assert changed.etag != made.etag
    stale = await admin.refused(admin.models.UpdateVersion, request)
    assert stale == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    for path in ("artifact", "label", "metrics", "nonsense"):
        odd = pb.UpdateVersionRequest(version=wanted, update_mask=FieldMask(paths=[path]))
        assert (await admin.refused(admin.models.UpdateVersion, odd))[1] == "INVALID_FIELD"
    for text in ("registry.example/churn:7", f"@sha256:{'0' * 64}", "x" * 600):
        odd = pb.UpdateVersionRequest(version=version_pb2.Version(name=made.name, image=text))
        assert (await admin.refused(admin.models.UpdateVersion, odd))[1] == "INVALID_FIELD"
    moved = version_pb2.Version(name=made.name, image=image.replace("churn", "by-hand"))
    changed = (
        await admin.call(admin.models.UpdateVersion, pb.UpdateVersionRequest(version=moved))
    ).version
    assert (changed.image, changed.license) == (moved.image, "MIT")
    listed = await admin.call(admin.models.ListVersions, pb.ListVersionsRequest(parent=MODEL))
    assert listed.versions[0].card == ""
    by_label = pb.ResolveVersionRequest(name=MODEL, label="1.0.0")
    assert (await admin.call(admin.models.ResolveVersion, by_label)).version.name == ONE


async def test_evaluations_are_added_and_never_changed(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    create = admin.models.CreateEvaluation
    for value in (0.5, math.nan):
        evaluation = evaluation_pb2.Evaluation(metrics={"f1": value}, notes="nightly")
        await admin.call(create, pb.CreateEvaluationRequest(parent=ONE, evaluation=evaluation))
    request = pb.ListEvaluationsRequest(parent=ONE, page_size=1)
    page = await admin.call(admin.models.ListEvaluations, request)
    assert math.isnan(page.evaluations[0].metrics["f1"])
    request.page_token = page.next_page_token
    page = await admin.call(admin.models.ListEvaluations, request)
    assert page.evaluations[0].metrics["f1"] == 0.5
    assert page.evaluations[0].name.startswith(f"{ONE}/evaluations/")
    empty = pb.CreateEvaluationRequest(parent=ONE)
    assert (await admin.refused(create, empty))[1] == "INVALID_FIELD"
    evaluation.dataset_version = f"{PROJECT}/datasets/none/versions/1"
    absent = pb.CreateEvaluationRequest(parent=ONE, evaluation=evaluation)
    assert (await admin.refused(create, absent))[1] == "RESOURCE_NOT_FOUND"


async def test_what_is_needed_stays(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    await point(admin)
    use = version_use_pb2.VersionUse(version=ONE, user=USER)
    await admin.call(
        admin.lineage.StartVersionUse, lineage_pb.StartVersionUseRequest(version_use=use)
    )
    delete, archive = pb.DeleteVersionRequest(name=ONE), pb.ArchiveVersionRequest(name=ONE)
    refusal = await admin.refusal(admin.models.DeleteVersion, delete)
    assert refusal[:2] == IN_USE
    assert refusal[2]["users"] == f"{ALIAS},{USER}"
    assert await admin.refused(admin.models.ArchiveVersion, archive) == IN_USE
    await admin.call(admin.models.DeleteAlias, pb.DeleteAliasRequest(name=ALIAS))
    assert (await admin.refusal(admin.models.DeleteVersion, delete))[2]["users"] == USER
    await admin.call(admin.lineage.EndVersionUse, lineage_pb.EndVersionUseRequest(version_use=use))
    deleted = (await admin.call(admin.models.DeleteVersion, delete)).version
    assert deleted.HasField("delete_time")


async def test_the_way_out_and_back(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact, label="1.0.0")
    archived = pb.ArchiveVersionRequest(name=ONE)
    assert (await admin.call(admin.models.ArchiveVersion, archived)).version.HasField(
        "archive_time"
    )
    newest = pb.ResolveVersionRequest(name=MODEL)
    assert (await admin.refused(admin.models.ResolveVersion, newest))[1] == "RESOURCE_NOT_FOUND"
    alias = pb.UpdateAliasRequest(alias=alias_pb2.Alias(name=ALIAS, version=ONE))
    refusal = await admin.refusal(admin.models.UpdateAlias, alias)
    assert (refusal[1], refusal[2]["state"]) == ("WRONG_STATE", "ARCHIVED")
    await admin.call(admin.models.UnarchiveVersion, pb.UnarchiveVersionRequest(name=ONE))
    purge = pb.PurgeVersionRequest(name=ONE)
    assert (await admin.refused(admin.models.PurgeVersion, purge))[1] == "WRONG_STATE"
    await admin.call(admin.models.DeleteVersion, pb.DeleteVersionRequest(name=ONE))
    assert (await get(admin)).HasField("delete_time")
    lists = admin.models.ListVersions
    assert not (await admin.call(lists, pb.ListVersionsRequest(parent=MODEL))).versions
    shown = pb.ListVersionsRequest(parent=MODEL, show_deleted=True)
    assert len((await admin.call(lists, shown)).versions) == 1
    await admin.call(admin.models.RestoreVersion, pb.RestoreVersionRequest(name=ONE))
    assert not (await get(admin)).HasField("delete_time")
    await admin.call(admin.models.DeleteVersion, pb.DeleteVersionRequest(name=ONE))
    await admin.call(admin.models.PurgeVersion, purge)
    gone = pb.GetVersionRequest(name=ONE)
    assert (await admin.refused(admin.models.GetVersion, gone))[1] == "RESOURCE_NOT_FOUND"
    again = await admin.new_version(artifact, label="1.0.0")
    assert again.name == f"{MODEL}/versions/2"


async def test_protected_aliases_need_the_deployers_right(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    project = project_pb2.Project(name=PROJECT, protected_aliases=["production"])
    await admin.call(
        admin.projects.UpdateProject, projects_pb.UpdateProjectRequest(project=project)
    )
    grant = token_pb2.Grant(project=PROJECT, role=project_pb2.ROLE_BUILDER)
    builder = await admin.new_caller("user:ann", grant)
    move = pb.UpdateAliasRequest(alias=alias_pb2.Alias(name=ALIAS, version=ONE))
    denied = (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING")
    assert await builder.refused(builder.models.UpdateAlias, move) == denied
    made = pb.CreateVersionRequest(
        parent=MODEL, version=version_pb2.Version(artifact=artifact), aliases=["production"]
    )
    assert await builder.refused(builder.models.CreateVersion, made) == denied
    await point(builder, name=f"{MODEL}/aliases/candidate")
    await point(admin)
    drop = pb.DeleteAliasRequest(name=ALIAS)
    assert await builder.refused(builder.models.DeleteAlias, drop) == denied
    await admin.call(admin.models.DeleteAlias, drop)


async def test_of_64_creators_of_one_name_one_succeeds(admin: Desk) -> None:
    request = pb.CreateModelRequest(parent=PROJECT, model_id="wanted", model=model_pb2.Model())

    async def create() -> str:
        try:
            await admin.call(admin.models.CreateModel, request)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    answers = await asyncio.gather(*(create() for _ in range(CREATORS)))
    assert sorted(answers) == ["ALREADY_EXISTS"] * (CREATORS - 1) + ["OK"]


async def test_writers_of_one_alias_leave_a_chain(admin: Desk, artifact: str) -> None:
    for _ in range(4):
        await admin.new_version(artifact)

    async def write(writer: int) -> None:
        for turn in range(4):
            await point(admin, f"{MODEL}/versions/{(writer + turn) % 4 + 1}")

    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    request = pb.ListAliasChangesRequest(parent=ALIAS, page_size=1000)
    changes = (await admin.call(admin.models.ListAliasChanges, request)).alias_changes
    assert changes[-1].old_version == ""
    assert len(changes) > 4
    for newer, older in pairwise(changes):
        assert newer.old_version == older.new_version
        assert newer.change_time.ToNanoseconds() > older.change_time.ToNanoseconds()
