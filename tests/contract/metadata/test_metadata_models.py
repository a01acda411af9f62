"""Models: created once, changed by etag, listed, filtered, paged."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from modelyard.metadata.v1 import model_pb2
from modelyard.metadata.v1 import model_service_pb2 as pb

from tests.contract.metadata.desk import MODEL, PROJECT, Desk

MAXIMIZE, MINIMIZE = model_pb2.METRIC_GOAL_MAXIMIZE, model_pb2.METRIC_GOAL_MINIMIZE


async def create(desk: Desk, model_id: str, **fields: Any) -> model_pb2.Model:
    request = pb.CreateModelRequest(
        parent=PROJECT, model_id=model_id, model=model_pb2.Model(**fields)
    )
    made: model_pb2.Model = (await desk.call(desk.models.CreateModel, request)).model
    return made


async def listed(desk: Desk, **fields: Any) -> list[str]:
    names: list[str] = []
    request = pb.ListModelsRequest(parent=PROJECT, **fields)
    while True:
        page = await desk.call(desk.models.ListModels, request)
        names += [model.name.rpartition("/")[2] for model in page.models]
        if not page.next_page_token:
            return names
        assert len(page.models) == request.page_size
        request.page_token = page.next_page_token


async def test_a_model_keeps_what_it_is_given(admin: Desk) -> None:
    made = await create(
        admin,
        "churn",
        display_name="Kündigung ❤",
        description="first\n\tsecond",
        labels={"team": "risk"},
        metric_goals={"val/loss": MINIMIZE},
    )
    assert made.name == MODEL
    found = (await admin.call(admin.models.GetModel, pb.GetModelRequest(name=MODEL))).model
    assert found == made
    assert (found.display_name, found.labels["team"]) == ("Kündigung ❤", "risk")
    assert found.metric_goals["val/loss"] == MINIMIZE
    assert found.create_time == found.update_time


async def test_of_two_creators_one_wins(admin: Desk) -> None:
    request = pb.CreateModelRequest(parent=PROJECT, model_id="churn")

    async def attempt() -> str:
        try:
            await admin.call(admin.models.CreateModel, request)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    outcomes = await asyncio.gather(*(attempt() for _ in range(8)))
    assert sorted(outcomes) == ["ALREADY_EXISTS"] * 7 + ["OK"]
    lost = pb.CreateModelRequest(parent="projects/nowhere", model_id="churn")
    assert (await admin.refused(admin.models.CreateModel, lost))[1] == "RESOURCE_NOT_FOUND"


async def test_request_ids_make_repeats_safe(admin: Desk) -> None:
    request = pb.CreateModelRequest(parent=PROJECT, model_id="churn", request_id="r-1")
    answers = await asyncio.gather(
        *(admin.call(admin.models.CreateModel, request) for _ in range(6))
    )
    assert all(answer == answers[0] for answer in answers)
    request.model_id = "other"
    reused = await admin.refused(admin.models.CreateModel, request)
    assert reused == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
    assert await listed(admin) == ["churn"]


async def test_updates_go_by_mask_and_etag(admin: Desk) -> None:
    made = await create(admin, "churn", display_name="old", labels={"a": "1", "b": "2"})
    request = pb.UpdateModelRequest(
        model=model_pb2.Model(name=MODEL, labels={"c": "3"}, etag=made.etag)
    )
    changed = (await admin.call(admin.models.UpdateModel, request)).model
    assert (changed.display_name, dict(changed.labels)) == ("old", {"c": "3"})
    assert changed.etag != made.etag
    code, name, metadata = await admin.refusal(admin.models.UpdateModel, request)
    assert (code, name) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert metadata == {"resource": MODEL, "etag": changed.etag}
    clear = pb.UpdateModelRequest(model=model_pb2.Model(name=MODEL, description="no"))
    clear.update_mask.paths.extend(["labels", "display_name"])
    cleared = (await admin.call(admin.models.UpdateModel, clear)).model
    assert (cleared.display_name, cleared.description, dict(cleared.labels)) == ("", "", {})
    clear.update_mask.paths.append("secret")
    assert (await admin.refused(admin.models.UpdateModel, clear))[1] == "INVALID_FIELD"
    absent = pb.UpdateModelRequest(model=model_pb2.Model(name=f"{PROJECT}/models/none"))
    assert (await admin.refused(admin.models.UpdateModel, absent))[1] == "RESOURCE_NOT_FOUND"


async def test_lists_are_filtered_ordered_and_paged(admin: Desk) -> None:
    ids = ["delta", "alpha", "charlie", "bravo", "echo"]
    for number, model_id in enumerate(ids):
        team = "risk" if number % 2 else "fraud"
        await create(admin, model_id, display_name=f"No. {number}", labels={"team": team})
    assert await listed(admin) == sorted(ids)
    assert await listed(admin, page_size=2) == sorted(ids)
    assert await listed(admin, page_size=1, order_by="create_time desc") == ids[::-1]
    assert await listed(admin, page_size=2, order_by="id desc") == sorted(ids, reverse=True)
    assert await listed(admin, filter='labels.team = "risk"') == ["alpha", "bravo"]
    assert await listed(admin, filter='NOT labels.team = "risk" AND id != "echo"') == [
        "charlie",
        "delta",
    ]
    first = await admin.call(
        admin.models.ListModels, pb.ListModelsRequest(parent=PROJECT, page_size=2)
    )
    other = pb.ListModelsRequest(
        parent=PROJECT, page_token=first.next_page_token, filter='id = "echo"'
    )
    assert (await admin.refused(admin.models.ListModels, other))[1] == "INVALID_PAGE_TOKEN"
    odd: list[tuple[dict[str, Any], str]] = [
        ({"page_token": "junk"}, "INVALID_PAGE_TOKEN"),
        ({"filter": "nonsense ="}, "INVALID_FILTER"),
        ({"filter": 'owner = "x"'}, "INVALID_FILTER"),
        ({"order_by": "owner"}, "INVALID_ORDER"),
        ({"page_size": -1}, "INVALID_FIELD"),
    ]
    for fields, wanted in odd:
        request = pb.ListModelsRequest(parent=PROJECT, **fields)
        assert (await admin.refused(admin.models.ListModels, request))[1] == wanted


async def test_bad_names_and_texts_are_refused(admin: Desk) -> None:
    for model_id in ("", "Churn", "../etc", "a" * 64, "a-", "ä", "a\n"):
        request = pb.CreateModelRequest(parent=PROJECT, model_id=model_id)
        assert (await admin.refused(admin.models.CreateModel, request))[1] == "INVALID_NAME"
    request = pb.CreateModelRequest(parent=PROJECT, model_id="a\0")
    assert (await admin.refused(admin.models.CreateModel, request))[1] == "INVALID_FIELD"
    odd: list[dict[str, Any]] = [
        {"display_name": "x" * 201},
        {"display_name": "a\nb"},
        {"description": "a\0b"},
        {"description": "x" * 65_537},
        {"labels": {"": "x"}},
        {"labels": {"k" * 64: "x"}},
        {"labels": {"k": "v" * 256}},
        {"labels": {"k": "\x1b[2J"}},
        {"labels": {f"k{n}": "v" for n in range(65)}},
        {"metric_goals": {"f1": 0}},
        {"metric_goals": {"f1": 7}},
    ]
    for fields in odd:
        request = pb.CreateModelRequest(
            parent=PROJECT, model_id="churn", model=model_pb2.Model(**fields)
        )
        assert await admin.refused(admin.models.CreateModel, request) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
        )
    assert await listed(admin) == []
