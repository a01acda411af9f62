"""Datasets by digest, and who uses which version."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import grpc
from modelyard.metadata.v1 import dataset_pb2, version_use_pb2
from modelyard.metadata.v1 import dataset_service_pb2 as pb
from modelyard.metadata.v1 import lineage_service_pb2 as lineage_pb

from tests.contract.metadata.desk import ABSENT, MODEL, PROJECT, Desk

DATASET = f"{PROJECT}/datasets/customers"
USER = f"{PROJECT}/environments/production/deployments/churn"


async def register(desk: Desk, digit: str, **fields: Any) -> dataset_pb2.DatasetVersion:
    request = pb.CreateDatasetVersionRequest(
        parent=DATASET, dataset_version=dataset_pb2.DatasetVersion(digest=digit * 64, **fields)
    )
    answer = await desk.call(desk.datasets.CreateDatasetVersion, request)
    found: dataset_pb2.DatasetVersion = answer.dataset_version
    return found


async def uses(desk: Desk, **fields: Any) -> list[version_use_pb2.VersionUse]:
    request = lineage_pb.ListVersionUsesRequest(**fields)
    page = await desk.call(desk.lineage.ListVersionUses, request)
    return list(page.version_uses)


async def test_a_digest_is_registered_once(admin: Desk) -> None:
    profile = dataset_pb2.ColumnProfile(count=3, null_count=1, min=-math.inf, mean=math.nan)
    made = await register(
        admin,
        "a",
        source={"uri": "s3://bucket/key", "columns": ["age"], "start_time": {"seconds": 1}},
        schema=[{"name": "age", "type": "float64", "profile": profile}, {"name": "x", "type": "i"}],
        row_count=3,
    )
    assert (made.name, made.creator) == (f"{DATASET}/versions/1", "user:admin")
    request = pb.GetDatasetVersionRequest(name=made.name)
    found = (await admin.call(admin.datasets.GetDatasetVersion, request)).dataset_version
    assert found.schema[0].profile.min == -math.inf
    assert math.isnan(found.schema[0].profile.mean)
    assert not found.schema[0].profile.HasField("std")
    assert found.SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)
    again = await asyncio.gather(*(register(admin, "b") for _ in range(6)))
    assert {version.name for version in again} == {f"{DATASET}/versions/2"}
    assert (await register(admin, "a", row_count=9)).row_count == 3
    page = await admin.call(
        admin.datasets.ListDatasetVersions, pb.ListDatasetVersionsRequest(parent=DATASET)
    )
    assert [version.digest[0] for version in page.dataset_versions] == ["b", "a"]
    assert not page.dataset_versions[1].schema[0].HasField("profile")
    datasets = await admin.call(admin.datasets.ListDatasets, pb.ListDatasetsRequest(parent=PROJECT))
    assert [dataset.name for dataset in datasets.datasets] == [DATASET]


async def test_dataset_versions_are_checked(admin: Desk) -> None:
    request = pb.CreateDatasetVersionRequest(parent=DATASET, request_id="once")
    request.dataset_version.digest = "c" * 64
    first = await admin.call(admin.datasets.CreateDatasetVersion, request)
    assert first == await admin.call(admin.datasets.CreateDatasetVersion, request)
    request.dataset_version.row_count = 1
    refused = await admin.refused(admin.datasets.CreateDatasetVersion, request)
    assert refused == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_REUSED")
    odd: list[dict[str, Any]] = [
        {"digest": "C" * 64},
        {"row_count": -1},
        {"artifact": f"projects/other/artifacts/{'0' * 64}"},
        {"schema": [{"name": "", "type": "i"}]},
        {"source": {"uri": "a\0"}},
        {"source": {"start_time": {"seconds": 2**60}}},
    ]
    for fields in odd:
        version = dataset_pb2.DatasetVersion(**({"digest": "d" * 64} | fields))
        bad = pb.CreateDatasetVersionRequest(parent=DATASET, dataset_version=version)
        assert (await admin.refused(admin.datasets.CreateDatasetVersion, bad))[1] == "INVALID_FIELD"
    absent = pb.GetDatasetVersionRequest(name=f"{DATASET}/versions/9")
    answer = await admin.refused(admin.datasets.GetDatasetVersion, absent)
    assert answer == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


async def test_uses_begin_end_and_begin_again(admin: Desk, artifact: str) -> None:
    version = (await admin.new_version(artifact)).name
    use = version_use_pb2.VersionUse(version=version, user=USER)
    start = lineage_pb.StartVersionUseRequest(version_use=use)
    end = lineage_pb.EndVersionUseRequest(version_use=use)
    assert (await admin.refused(admin.lineage.EndVersionUse, end))[1] == "RESOURCE_NOT_FOUND"
    answers = await asyncio.gather(
        *(admin.call(admin.lineage.StartVersionUse, start) for _ in range(4))
    )
    assert all(answer == answers[0] for answer in answers)
    assert len(await uses(admin, parent=MODEL, current_only=True)) == 1
    ended = (await admin.call(admin.lineage.EndVersionUse, end)).version_use
    assert ended.HasField("end_time")
    assert ended == (await admin.call(admin.lineage.EndVersionUse, end)).version_use
    assert await uses(admin, parent=version, current_only=True) == []
    await admin.call(admin.lineage.StartVersionUse, start)
    both = await uses(admin, parent=version)
    assert [use.HasField("end_time") for use in both] == [False, True]


async def test_only_ready_versions_are_used(admin: Desk) -> None:
    pending = (await admin.new_version(ABSENT)).name
    use = version_use_pb2.VersionUse(version=pending, user=USER)
    start = lineage_pb.StartVersionUseRequest(version_use=use)
    assert await admin.refused(admin.lineage.StartVersionUse, start) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_STATE",
    )
    use.user = "projects/other/environments/e/deployments/d"
    foreign = lineage_pb.StartVersionUseRequest(version_use=use)
    assert (await admin.refused(admin.lineage.StartVersionUse, foreign))[1] == "INVALID_FIELD"
    listing = lineage_pb.ListVersionUsesRequest(parent=f"{PROJECT}/datasets/d")
    assert (await admin.refused(admin.lineage.ListVersionUses, listing))[1] == "INVALID_NAME"
