"""Searches of runs by every field they have, on each database, whatever is missing or tied."""

from __future__ import annotations

import math
from typing import Any

import grpc
import modelyard
import pytest
from modelyard._values import encode_value
from modelyard.errors import NotFoundError
from modelyard.metadata.v1 import dataset_pb2, dataset_service_pb2, model_pb2, run_pb2
from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as pb

from tests.contract.metadata.desk import MODEL, PROJECT, Desk

DATASET = f"{PROJECT}/datasets/clicks"
OTHER = f"{PROJECT}/models/other"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def listed(desk: Desk, *, parent: str = MODEL, **fields: Any) -> list[str]:
    """Return the ids of a search, read page by page."""
    names: list[str] = []
    request = pb.ListRunsRequest(parent=parent, **fields)
    while True:
        page = await desk.call(desk.runs.ListRuns, request)
        names += [run.name.rpartition("/")[2] for run in page.runs]
        if not page.next_page_token:
            return names
        request.page_token = page.next_page_token


async def add_run(
    desk: Desk,
    run_id: str,
    *,
    parent: str = MODEL,
    params: dict[str, Any] | None = None,
    metrics: dict[str, list[float]] | None = None,
    fields: dict[str, Any] | None = None,
    **rest: Any,
) -> str:
    """Start a run and send all there is to say of it."""
    run = run_pb2.Run(**(fields or {}))
    request = pb.CreateRunRequest(parent=parent, run_id=run_id, run=run)
    name: str = (await desk.call(desk.runs.CreateRun, request)).run.name
    batch = pb.IngestRunDataRequest(run=name, writer="w", end_sequence=1, **rest)
    for key, value in (params or {}).items():
        batch.params[key].CopyFrom(encode_value(value))
    for key, values in (metrics or {}).items():
        steps = range(len(values))
        batch.metrics.add(key=key, steps=steps, times_us=steps, values=values)
    await desk.ingest(batch)
    return name


async def set_goals(desk: Desk, model: str, **goals: Any) -> None:
    message = model_pb2.Model(name=model, metric_goals=goals)
    await desk.call(desk.models.UpdateModel, models_pb.UpdateModelRequest(model=message))


@pytest.fixture
async def yard(admin: Desk) -> Desk:
    """Four runs, a to d, of which each has something that another lacks."""
    request = dataset_service_pb2.CreateDatasetVersionRequest(
        parent=DATASET, dataset_version=dataset_pb2.DatasetVersion(digest="0" * 64)
    )
    version = (await admin.call(admin.datasets.CreateDatasetVersion, request)).dataset_version.name
    await add_run(
        admin,
        "a",
        fields={"display_name": "Alpha", "group": "sweep", "tags": {"team": "risk"}},
        params={"lr": 0.1, "kind": "tree", "deep": True, "mixed": 3},
        metrics={"f1": [0.9, 0.5]},
        datasets=[run_pb2.DatasetUse(role="train", dataset_version=version)],
    )
    await add_run(
        admin,
        "b",
        fields={"display_name": "beta", "group": "sweep", "tags": {"team": "fraud", "x": ""}},
        params={"lr": 1, "kind": "linear", "deep": False, "mixed": "text"},
        metrics={"f1": [math.nan, 0.7], "loss": [2.0]},
        code=run_pb2.CodeSource(commit="abc123", branch="main"),
    )
    await add_run(
        admin,
        "c",
        params={"lr": math.nan, "kind": "Tree", "mixed": 0.5},
        metrics={"f1": [0.7], "loss": [math.inf, 1.0]},
        image="registry/image@sha256:1",
    )
    await add_run(
        admin, "d", params={"mixed": [1, 2]}, metrics={"f1": [math.nan], "loss": [-math.inf]}
    )
    for run_id, state in (("c", run_pb2.RUN_STATE_SUCCEEDED), ("a", run_pb2.RUN_STATE_FAILED)):
        finish = pb.FinishRunRequest(name=f"{MODEL}/runs/{run_id}", state=state)
        await admin.call(admin.runs.FinishRun, finish)
    await set_goals(
        admin, MODEL, f1=model_pb2.METRIC_GOAL_MAXIMIZE, loss=model_pb2.METRIC_GOAL_MINIMIZE
    )
    return admin


FILTERS = {
    'id = "a"': "a",
    'id != "a"': "dcb",
    'display_name : "a"': "ba",
    'display_name = ""': "dc",
    "display_name:*": "ba",
    "state = RUNNING": "db",
    "NOT state = RUNNING": "ca",
    'group = "sweep"': "ba",
    'NOT group = "sweep"': "dc",
    'creator = "user:admin"': "dcba",
    'create_time > "2020-01-01T00:00:00Z"': "dcba",
    'end_time < "2020-01-01T00:00:00Z"': "",
    "end_time:*": "ca",
    "build:*": "",
    "image:*": "c",
    'commit = "abc123"': "b",
    'branch = "main"': "b",
    f'dataset = "{DATASET}"': "a",
    f'dataset = "{DATASET}/versions/1"': "a",
    f'dataset = "{DATASET}/versions/2"': "",
    "dataset:*": "a",
    'tags.team = "risk"': "a",
    'tags.team != "risk"': "b",
    "tags.x:*": "b",
    'tags : "x"': "b",
    "params.lr = 0.1": "a",
    "params.lr >= 0.1": "ba",
    "params.lr != 0.1": "b",
    "params.lr:*": "cba",
    'params.kind = "tree"': "a",
    'params.kind : "TRE"': "ca",
    "params.deep = true": "a",
    "params.deep != true": "b",
    "params.mixed > 0": "ca",
    'params.mixed = "text"': "b",
    "metrics.f1 >= 0.7": "cb",
    "metrics.f1:*": "dcba",
    "metrics.f1.max:*": "cba",
    "metrics.f1.max > 0.8": "a",
    "metrics.f1.min < 0.6": "a",
    "metrics.f1.best = 0.9": "a",
    "metrics.loss.best <= 1": "dc",
    "metrics.loss.max > 1e300": "c",
    'metrics.f1 = 0.7 AND (tags.team = "fraud" OR image:*)': "cb",
    'metrics.f1 > 0 AND NOT params.kind : "tree"': "b",
}
ORDERS = {
    "": "dcba",
    "id": "abcd",
    "display_name": "abcd",
    "state": "abdc",
    "group desc, id": "abcd",
    "create_time": "abcd",
    "end_time": "cabd",
    "image": "cabd",
    "commit desc": "bdca",
    "branch": "bacd",
    "build, id desc": "dcba",
    "creator": "abcd",
    "tags.team": "bacd",
    "tags.x desc": "bdca",
    "params.lr": "abcd",
    "params.lr desc": "badc",
    "params.mixed": "cabd",
    "params.mixed desc": "bacd",
    "params.kind": "cbad",
    "params.deep": "bacd",
    "metrics.f1": "abcd",
    "metrics.f1 desc": "cbad",
    "metrics.f1.min, id desc": "acbd",
    "metrics.f1.max desc, id": "abcd",
    "metrics.f1.best desc": "acbd",
    "metrics.loss": "dcba",
    "metrics.loss.best": "dcba",
    "metrics.loss.max desc": "cbda",
    'metrics["f1"] desc, metrics.loss': "cbad",
}


async def test_every_field_is_filtered_by(yard: Desk) -> None:
    found = {text: "".join(await listed(yard, filter=text)) for text in FILTERS}
    assert found == FILTERS
    by_metric = {
        text: "".join(await listed(yard, filter=text, order_by="metrics.f1 desc", page_size=1))
        for text in FILTERS
    }
    in_order = {text: "".join(sorted(wanted, key="cbad".index)) for text, wanted in FILTERS.items()}
    assert by_metric == in_order


async def test_every_field_is_ordered_by(yard: Desk) -> None:
    for size in (1, 2, 50):
        found = {
            text: "".join(await listed(yard, order_by=text, page_size=size)) for text in ORDERS
        }
        assert found == ORDERS


async def test_what_is_wrong_is_said(yard: Desk) -> None:
    async def refused(**fields: Any) -> tuple[grpc.StatusCode, str]:
        return await yard.refused(yard.runs.ListRuns, pb.ListRunsRequest(parent=MODEL, **fields))

    for text in ("absent = 1", "metrics.f1.mean > 1", "dataset = 1", 'state = "DONE"', "id > 1"):
        assert await refused(filter=text) == (INVALID, "INVALID_FILTER"), text
    for text in ("dataset", "params", "metrics.f1.mean", "id.x", "tags.a.b", "id, id"):
        assert await refused(order_by=text) == (INVALID, "INVALID_ORDER"), text
    missing = (grpc.StatusCode.FAILED_PRECONDITION, "GOAL_MISSING")
    assert await refused(filter="metrics.recall.best > 1") == missing
    assert await refused(order_by="metrics.recall.best") == missing
    page = await yard.call(yard.runs.ListRuns, pb.ListRunsRequest(parent=MODEL, page_size=1))
    assert await refused(page_token=page.next_page_token, order_by="id") == (
        INVALID,
        "INVALID_PAGE_TOKEN",
    )
    assert await listed(yard, parent=f"{PROJECT}/models/absent", filter="metrics.f1 > 0") == []


async def test_a_search_spans_models_each_with_its_own_goal(yard: Desk) -> None:
    await add_run(yard, "e", parent=OTHER, metrics={"f1": [0.6, 0.8], "loss": [0.0]})
    everything = f"{PROJECT}/models/-"

    async def found(**fields: Any) -> str:
        return "".join(await listed(yard, parent=everything, page_size=2, **fields))

    assert await found() == "edcba"
    assert await found(order_by="metrics.f1 desc") == "ecbad"
    assert await found(order_by="metrics.f1") == "abced"
    assert await found(filter="metrics.f1 > 0.6", order_by="id") == "bce"
    # The other model says nothing of f1: it has no best.
    assert await found(order_by="metrics.f1.best desc") == "acbed"
    await set_goals(yard, OTHER, f1=model_pb2.METRIC_GOAL_MINIMIZE)
    assert await found(order_by="metrics.f1.best desc") == "acbed"
    assert await found(filter="metrics.f1.best < 0.7") == "e"


async def test_lists_say_what_is_best_and_leave_out_what_is_long(yard: Desk) -> None:
    await add_run(
        yard,
        "long",
        fields={"notes": "long"},
        metrics={"loss": [3.0, 2.0, 5.0]},
        code=run_pb2.CodeSource(commit="f00", diff="+long"),
        environment=run_pb2.RuntimeEnvironment(
            cpu="x", packages=[run_pb2.Package(name="numpy", version="2.0")]
        ),
    )
    request = pb.ListRunsRequest(parent=MODEL, filter='id = "long"')
    (run,) = (await yard.call(yard.runs.ListRuns, request)).runs
    assert (run.notes, run.code.diff, list(run.environment.packages)) == ("", "", [])
    assert (run.code.commit, run.environment.cpu) == ("f00", "x")
    assert (run.metrics[0].best, run.metrics[0].last) == (2.0, 5.0)
    # A goal that changes is seen at once.
    await set_goals(yard, MODEL, loss=model_pb2.METRIC_GOAL_MAXIMIZE)
    (run,) = (await yard.call(yard.runs.ListRuns, request)).runs
    assert run.metrics[0].best == 5.0


async def test_the_client_searches(yard: Desk) -> None:
    address = f"127.0.0.1:{yard.house.port}"
    async with modelyard.AsyncClient(address, token=yard.credential, project="default") as client:
        found = [run async for run in client.runs.list("churn", group="sweep")]
        assert [run.name[-1] for run in found] == ["b", "a"]
        best = client.runs.search(model="churn", order_by="metrics.f1.best desc", page_size=2)
        assert [run.name[-1] async for run in best] == ["a", "c", "b", "d"]
        changed = await client.runs.update("churn/a", notes="Kept.")
        assert changed.notes == "Kept."
        await client.runs.delete("churn/a", etag=changed.etag)
        assert [run.name[-1] async for run in client.runs.list("churn", group="sweep")] == ["b"]
        await client.runs.purge("churn/a")
        with pytest.raises(NotFoundError):
            await client.runs.restore("churn/a")
