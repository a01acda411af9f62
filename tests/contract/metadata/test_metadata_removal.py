"""Models and projects at their end: deleted, restored, removed for ever."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import grpc
from modelyard import AsyncClient
from modelyard.metadata.v1 import (
    alias_pb2,
    dataset_pb2,
    model_pb2,
    project_pb2,
    run_pb2,
    version_use_pb2,
)
from modelyard.metadata.v1 import dataset_service_pb2 as datasets_pb
from modelyard.metadata.v1 import lineage_service_pb2 as lineage_pb
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import project_service_pb2 as projects_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from tests.contract.builder.yard import until
from tests.contract.metadata.desk import MODEL, PROJECT, Desk

ONE = f"{MODEL}/versions/1"
ALIAS = f"{MODEL}/aliases/production"
USER = f"{PROJECT}/environments/production/deployments/churn"
RUN = f"{MODEL}/runs/first"
IN_USE = (grpc.StatusCode.FAILED_PRECONDITION, "RESOURCE_IN_USE")
WRONG = (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
ABSENT = (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
DELETE = pb.DeleteModelRequest(name=MODEL)
RESTORE = pb.RestoreModelRequest(name=MODEL)
PURGE = pb.PurgeModelRequest(name=MODEL)
CHURN = "churn"
WRITERS = 3
RISK = "projects/risk"


async def new_run(desk: Desk, parent: str = MODEL, run: str = "first") -> None:
    request = runs_pb.CreateRunRequest(parent=parent, run_id=run, run=run_pb2.Run())
    await desk.call(desk.runs.CreateRun, request)


async def end_run(desk: Desk, name: str = RUN) -> None:
    request = runs_pb.FinishRunRequest(name=name, state=run_pb2.RUN_STATE_SUCCEEDED)
    await desk.call(desk.runs.FinishRun, request)


async def delete(desk: Desk) -> model_pb2.Model:
    deleted: model_pb2.Model = (await desk.call(desk.models.DeleteModel, DELETE)).model
    return deleted


async def test_a_model_that_is_needed_stays(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    alias = alias_pb2.Alias(name=ALIAS, version=ONE)
    await admin.call(admin.models.UpdateAlias, pb.UpdateAliasRequest(alias=alias))
    use = version_use_pb2.VersionUse(version=ONE, user=USER)
    await admin.call(
        admin.lineage.StartVersionUse, lineage_pb.StartVersionUseRequest(version_use=use)
    )
    await new_run(admin)
    refusal = await admin.refusal(admin.models.DeleteModel, DELETE)
    assert refusal[:2] == IN_USE
    assert refusal[2]["users"] == f"{ALIAS},{USER},{RUN}"
    await admin.call(admin.models.DeleteAlias, pb.DeleteAliasRequest(name=ALIAS))
    await admin.call(admin.lineage.EndVersionUse, lineage_pb.EndVersionUseRequest(version_use=use))
    await end_run(admin)
    stale = pb.DeleteModelRequest(name=MODEL, etag="0")
    assert (await admin.refused(admin.models.DeleteModel, stale))[1] == "ETAG_MISMATCH"
    assert (await delete(admin)).HasField("delete_time")
    assert await admin.refused(admin.models.PurgeModel, pb.PurgeModelRequest(name=MODEL + "x")) == (
        ABSENT
    )


async def test_nothing_comes_into_a_model_that_goes(admin: Desk) -> None:
    await admin.call(
        admin.models.CreateModel, pb.CreateModelRequest(parent=PROJECT, model_id=CHURN)
    )

    async def write(writer: int) -> None:
        for turn in itertools.count():
            run = f"w{writer}-{turn}"
            try:
                await new_run(admin, run=run)
            except grpc.aio.AioRpcError as error:
                refused.add(error.code())
                return
            await end_run(admin, f"{MODEL}/runs/{run}")

    async def list_runs() -> set[str]:
        request = runs_pb.ListRunsRequest(parent=MODEL, page_size=1_000)
        return {run.name for run in (await admin.call(admin.runs.ListRuns, request)).runs}

    async def gone() -> bool:
        try:
            await delete(admin)
        except grpc.aio.AioRpcError as error:
            refused.add(error.code())
            return False
        return True

    async def begun() -> bool:
        return len(await list_runs()) > WRITERS

    refused = set[grpc.StatusCode]()
    writers = [asyncio.ensure_future(write(writer)) for writer in range(WRITERS)]
    await until(begun)
    await until(gone)
    found = await list_runs()
    await asyncio.gather(*writers)
    assert await list_runs() == found
    assert refused == {grpc.StatusCode.FAILED_PRECONDITION}


async def test_a_deleted_model_is_out_of_the_way_and_comes_back(admin: Desk, artifact: str) -> None:
    await admin.new_version(artifact)
    await new_run(admin)
    await end_run(admin)
    first = await delete(admin)
    assert await delete(admin) == first
    models, every = admin.models, f"{PROJECT}/models/-"
    lists = [
        (models.ListModels, pb.ListModelsRequest(parent=PROJECT), "models"),
        (models.ListVersions, pb.ListVersionsRequest(parent=every), "versions"),
        (admin.runs.ListRuns, runs_pb.ListRunsRequest(parent=every), "runs"),
    ]
    for method, request, field in lists:
        assert not getattr(await admin.call(method, request), field)
    shown = pb.ListModelsRequest(parent=PROJECT, show_deleted=True)
    assert [m.name for m in (await admin.call(models.ListModels, shown)).models] == [MODEL]
    got = await admin.call(models.GetModel, pb.GetModelRequest(name=MODEL))
    assert got.model == first
    await admin.call(models.GetVersion, pb.GetVersionRequest(name=ONE))
    newest = pb.ResolveVersionRequest(name=MODEL)
    assert await admin.refused(models.ResolveVersion, newest) == ABSENT
    again = pb.CreateModelRequest(parent=PROJECT, model_id="churn")
    assert (await admin.refused(models.CreateModel, again))[1] == "RESOURCE_EXISTS"
    alias = alias_pb2.Alias(name=ALIAS, version=ONE)
    use = version_use_pb2.VersionUse(version=ONE, user=USER)
    version = pb.CreateVersionRequest(parent=MODEL)
    version.version.artifact = artifact
    for method, request in (
        (models.CreateVersion, version),
        (models.UpdateModel, pb.UpdateModelRequest(model=model_pb2.Model(name=MODEL))),
        (models.UpdateAlias, pb.UpdateAliasRequest(alias=alias)),
        (models.ArchiveVersion, pb.ArchiveVersionRequest(name=ONE)),
        (admin.runs.CreateRun, runs_pb.CreateRunRequest(parent=MODEL, run_id="second")),
        (admin.lineage.StartVersionUse, lineage_pb.StartVersionUseRequest(version_use=use)),
    ):
        refusal = await admin.refusal(method, request)
        assert (refusal[:2], refusal[2]["resource"]) == (WRONG, MODEL)
    back = (await admin.call(models.RestoreModel, RESTORE)).model
    assert not back.HasField("delete_time")
    assert await admin.refused(models.PurgeModel, PURGE) == WRONG
    for method, request, field in lists:
        assert len(getattr(await admin.call(method, request), field)) == 1
    assert (await admin.new_version(artifact)).name == f"{MODEL}/versions/2"


async def test_a_purged_model_is_gone_with_its_bytes_and_its_numbers_stay_used(
    admin: Desk, artifact: str
) -> None:
    for _ in range(3):
        await admin.new_version(artifact)
    await new_run(admin)
    await end_run(admin)
    await delete(admin)
    await admin.call(admin.models.PurgeModel, PURGE)
    for method, request in (
        (admin.models.GetModel, pb.GetModelRequest(name=MODEL)),
        (admin.models.GetVersion, pb.GetVersionRequest(name=ONE)),
        (admin.models.RestoreModel, RESTORE),
        (admin.runs.GetRun, runs_pb.GetRunRequest(name=RUN)),
    ):
        assert await admin.refused(method, request) == ABSENT
    shown = pb.ListModelsRequest(parent=PROJECT, show_deleted=True)
    assert not (await admin.call(admin.models.ListModels, shown)).models
    await no_holds(admin, artifact)
    await new_run(admin)
    again = await admin.new_version(artifact, label="1.0.0")
    assert again.name == f"{MODEL}/versions/4"


async def holders(desk: Desk, artifact: str) -> list[str]:
    """Return what holds an artifact."""
    address = f"127.0.0.1:{desk.house.artifact_port}"
    async with AsyncClient(address, token=desk.credential) as client:
        return [hold.holder async for hold in client.artifacts.holds(artifact)]


async def no_holds(desk: Desk, artifact: str) -> None:
    """Wait until nothing holds an artifact."""

    async def free() -> bool:
        return not await holders(desk, artifact)

    await until(free)


async def push_rows(desk: Desk, folder: Path) -> str:
    """Push a file to the project that is to go; return the artifact's name."""
    rows = folder / "rows.csv"
    rows.write_text("1")
    address = f"127.0.0.1:{desk.house.artifact_port}"
    async with AsyncClient(address, token=desk.credential, project="risk") as client:
        return (await client.artifacts.push(rows)).name


async def test_a_project_goes_when_it_is_empty(admin: Desk, artifact: str, tmp_path: Path) -> None:
    projects, model = admin.projects, f"{RISK}/models/churn"
    create = projects_pb.CreateProjectRequest(project_id="risk", project=project_pb2.Project())
    await admin.call(projects.CreateProject, create)
    await admin.call(admin.models.CreateModel, pb.CreateModelRequest(parent=RISK, model_id="churn"))
    rows = await push_rows(admin, tmp_path)
    dataset = datasets_pb.CreateDatasetVersionRequest(
        parent=f"{RISK}/datasets/train",
        dataset_version=dataset_pb2.DatasetVersion(
            digest="0" * 64, artifact=f"{RISK}/artifacts/{'0' * 64}"
        ),
    )
    refused = await admin.refused(admin.datasets.CreateDatasetVersion, dataset)
    assert refused[1] == "BYTES_MISSING"
    dataset.dataset_version.artifact = rows
    await admin.call(admin.datasets.CreateDatasetVersion, dataset)
    assert await holders(admin, rows) == [dataset.parent]
    delete = projects_pb.DeleteProjectRequest(name=RISK)
    refusal = await admin.refusal(projects.DeleteProject, delete)
    assert (refusal[:2], refusal[2]["users"]) == (IN_USE, model)
    await admin.call(admin.models.DeleteModel, pb.DeleteModelRequest(name=model))
    await admin.call(projects.DeleteProject, delete)
    listed = await admin.call(projects.ListProjects, projects_pb.ListProjectsRequest())
    assert RISK not in {project.name for project in listed.projects}
    dataset.dataset_version.digest = "1" * 64
    project = project_pb2.Project(name=RISK, description="d")
    for method, request in (
        (admin.models.CreateModel, pb.CreateModelRequest(parent=RISK, model_id="other")),
        (admin.models.RestoreModel, pb.RestoreModelRequest(name=model)),
        (admin.datasets.CreateDatasetVersion, dataset),
        (projects.UpdateProject, projects_pb.UpdateProjectRequest(project=project)),
    ):
        assert await admin.refused(method, request) == WRONG
    assert (await admin.refused(projects.CreateProject, create))[1] == "RESOURCE_EXISTS"
    await admin.call(projects.RestoreProject, projects_pb.RestoreProjectRequest(name=RISK))
    await admin.call(admin.models.RestoreModel, pb.RestoreModelRequest(name=model))
    purge = projects_pb.PurgeProjectRequest(name=RISK)
    assert await admin.refused(projects.PurgeProject, purge) == WRONG
    await admin.call(admin.models.DeleteModel, pb.DeleteModelRequest(name=model))
    await admin.call(projects.DeleteProject, delete)
    await admin.call(projects.PurgeProject, purge)
    await no_holds(admin, rows)
    get = projects_pb.GetProjectRequest(name=RISK)
    assert await admin.refused(projects.GetProject, get) == ABSENT
    assert (await admin.refused(projects.CreateProject, create))[1] == "RESOURCE_EXISTS"
    gone = pb.CreateModelRequest(parent=RISK, model_id="churn")
    assert await admin.refused(admin.models.CreateModel, gone) == ABSENT
