"""Lineage: from data to what is live, and back."""

from __future__ import annotations

import grpc
from modelyard.metadata.v1 import lineage_service_pb2 as pb
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb
from modelyard.metadata.v1 import version_use_pb2

from tests.contract.metadata.desk import MODEL, PROJECT, Desk
from tests.contract.metadata.test_metadata_lineage import DATASET, USER, register

DATA = f"{DATASET}/versions/1"
BUILD = f"{PROJECT}/builds/b1"
ONE = f"{MODEL}/versions/1"
ALIAS = f"{MODEL}/aliases/champion"
DOWN, UP = pb.LINEAGE_DIRECTION_DOWNSTREAM, pb.LINEAGE_DIRECTION_UPSTREAM


async def furnish(desk: Desk, artifact: str) -> str:
    """Make one of everything; return the run."""
    await register(desk, "a")
    request = runs_pb.CreateRunRequest(parent=MODEL)
    request.run.build = BUILD
    run: str = (await desk.call(desk.runs.CreateRun, request)).run.name
    batch = runs_pb.IngestRunDataRequest(run=run, writer="w", end_sequence=1)
    batch.datasets.add(role="train", dataset_version=DATA)
    await desk.ingest(batch)
    await desk.new_version(artifact, run=run, aliases=("champion",))
    use = version_use_pb2.VersionUse(version=ONE, user=USER)
    await desk.call(desk.lineage.StartVersionUse, pb.StartVersionUseRequest(version_use=use))
    return run


async def trace(desk: Desk, name: str, **fields: object) -> pb.GetLineageResponse:
    request = pb.GetLineageRequest(name=name, **fields)  # type: ignore[arg-type]  # as given
    found: pb.GetLineageResponse = await desk.call(desk.lineage.GetLineage, request)
    return found


async def test_data_leads_to_what_is_live_and_back(admin: Desk, artifact: str) -> None:
    run = await furnish(admin, artifact)
    down = await trace(admin, DATA, direction=DOWN)
    assert [node.name for node in down.nodes] == [DATA, run, ONE, ALIAS, USER]
    assert [(edge.target, edge.relation) for edge in down.edges] == [
        (run, "train"),
        (ONE, "produced"),
        (ALIAS, "points to"),
        (USER, "uses"),
    ]
    assert down.nodes[4].state == "LIVE"
    up = await trace(admin, USER, direction=UP)
    assert [node.name for node in up.nodes] == [USER, ONE, run, DATA, BUILD]
    both = await trace(admin, run)
    assert {node.name for node in both.nodes} == {run, ONE, ALIAS, USER, DATA, BUILD}
    for name in (DATASET, MODEL, BUILD, ALIAS):
        assert len((await trace(admin, name)).nodes) > 3


async def test_what_ended_shows_only_when_asked_for(admin: Desk, artifact: str) -> None:
    await furnish(admin, artifact)
    use = version_use_pb2.VersionUse(version=ONE, user=USER)
    await admin.call(admin.lineage.EndVersionUse, pb.EndVersionUseRequest(version_use=use))
    assert USER not in {n.name for n in (await trace(admin, ONE, direction=DOWN)).nodes}
    past = await trace(admin, ONE, direction=DOWN, include_past=True)
    assert {n.name: n.state for n in past.nodes}[USER] == "ENDED"
    await admin.call(admin.models.DeleteAlias, models_pb.DeleteAliasRequest(name=ALIAS))
    await admin.call(admin.models.DeleteVersion, models_pb.DeleteVersionRequest(name=ONE))
    assert (await trace(admin, ONE)).nodes[0].state == "DELETED"


async def test_graphs_are_bounded_and_begin_somewhere(admin: Desk, artifact: str) -> None:
    await furnish(admin, artifact)
    cut = await trace(admin, DATA, max_nodes=3)
    assert (len(cut.nodes), cut.truncated) == (3, True)
    absent = pb.GetLineageRequest(name=f"{MODEL}/versions/9")
    refused = await admin.refused(admin.lineage.GetLineage, absent)
    assert refused == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    odd = pb.GetLineageRequest(name=f"{PROJECT}/artifacts/{'0' * 64}")
    assert (await admin.refused(admin.lineage.GetLineage, odd))[1] == "INVALID_NAME"
