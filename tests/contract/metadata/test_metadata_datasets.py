"""Dataset versions with profiles: kept whole, refused when they cannot be, compared."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.json_format import ParseDict
from modelyard.metadata.v1 import dataset_difference_pb2, dataset_pb2
from modelyard.metadata.v1 import dataset_service_pb2 as pb

from tests.contract.metadata.desk import PROJECT, Desk

PARENT = f"{PROJECT}/datasets/prices"
NUMBERS: dict[str, Any] = {
    "count": 1_010,
    "null_count": 8,
    "nan_count": 2,
    "kind": "COLUMN_KIND_NUMERIC",
    "min": "-Infinity",
    "max": 100.0,
    "mean": 50.0,
    "std": 29.0,
    "quantiles": ["-Infinity", *(float(place) for place in range(1, 101))],
    "distinct_count": 1_000,
    "histogram": {"edges": [0.0, 50.0, 100.0], "counts": [500, 500]},
    "quantile_sketch": "AAEC/w==",
    "distinct_sketch": "AAE=",
}
TEXTS: dict[str, Any] = {
    "count": 1_010,
    "null_count": 0,
    "kind": "COLUMN_KIND_CATEGORICAL",
    "distinct_count": 3,
    "top_values": [
        {"value": "Köln\n", "count": 600},
        {"value": "", "count": 400},
        {"value": "\U0001f600", "count": 10},
    ],
}


def draft(digest: str, *profiles: dict[str, Any], **types: str) -> dataset_pb2.DatasetVersion:
    names = ("x", "city", "more")
    schema = [
        {"name": name, "type": types.get(name, "float64"), "profile": profile}
        for name, profile in zip(names, profiles, strict=False)
    ]
    facts = {"digest": digest * 64, "schema": schema, "row_count": 1_010}
    return ParseDict(facts, dataset_pb2.DatasetVersion())


def creation(version: dataset_pb2.DatasetVersion) -> pb.CreateDatasetVersionRequest:
    return pb.CreateDatasetVersionRequest(parent=PARENT, dataset_version=version)


async def made(desk: Desk, version: dataset_pb2.DatasetVersion) -> dataset_pb2.DatasetVersion:
    answer = await desk.call(desk.datasets.CreateDatasetVersion, creation(version))
    return cast("dataset_pb2.DatasetVersion", answer.dataset_version)


def comparison(base: str, other: str) -> pb.CompareDatasetsRequest:
    return pb.CompareDatasetsRequest(parent=PROJECT, base=base, other=other)


async def compared(desk: Desk, base: str, other: str) -> dataset_difference_pb2.DatasetDifference:
    answer = await desk.call(desk.datasets.CompareDatasets, comparison(base, other))
    return cast("dataset_difference_pb2.DatasetDifference", answer.difference)


async def test_a_profile_is_kept_whole(admin: Desk) -> None:
    given = draft("a", NUMBERS, TEXTS)
    version = await made(admin, given)
    read = await admin.call(
        admin.datasets.GetDatasetVersion, pb.GetDatasetVersionRequest(name=version.name)
    )
    assert list(read.dataset_version.schema) == list(given.schema)
    listed = await admin.call(
        admin.datasets.ListDatasetVersions, pb.ListDatasetVersionsRequest(parent=PARENT)
    )
    (brief,) = listed.dataset_versions
    assert [column.name for column in brief.schema] == ["x", "city"]
    assert not any(column.HasField("profile") for column in brief.schema)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"null_count": 1_009}, "profile"),
    ({"nan_count": -1}, "profile"),
    ({"null_count": -1}, "profile"),
    ({"kind": 17}, "kind"),
    ({"min": "NaN"}, "min"),
    ({"min": 101.0}, "min"),
    ({"std": -1.0}, "std"),
    ({"quantiles": [1.0, 2.0]}, "quantiles"),
    ({"quantiles": [1.0] * 100 + [0.0]}, "quantiles"),
    ({"quantiles": [1.0] * 100 + ["NaN"]}, "quantiles"),
    ({"distinct_count": -1}, "distinct_count"),
    ({"top_values": [{"value": str(i), "count": 1} for i in range(101)]}, "top_values"),
    ({"top_values": [{"value": "x" * 256, "count": 1}]}, "top_values.value"),
    ({"top_values": [{"value": "x", "count": 0}]}, "top_values.count"),
    ({"top_values": [{"value": "x", "count": 1_001}]}, "top_values.count"),
    ({"top_values": [{"value": "x", "count": 1}] * 2}, "top_values.value"),
    ({"top_values": [{"value": value, "count": 501} for value in "xy"]}, "top_values.count"),
    ({"histogram": {"edges": [1.0], "counts": []}}, "histogram"),
    ({"histogram": {"edges": [1.0, 2.0], "counts": [-1]}}, "histogram.counts"),
    ({"histogram": {"edges": [2.0, 1.0], "counts": [1]}}, "histogram.edges"),
    ({"quantile_sketch": "A" * 100_000}, "quantile_sketch"),
]


async def test_a_profile_that_cannot_be_is_refused(admin: Desk) -> None:
    for change, field in IMPOSSIBLE:
        request = creation(draft("b", {**NUMBERS, **change}))
        _, reason, facts = await admin.refusal(admin.datasets.CreateDatasetVersion, request)
        assert reason == "INVALID_FIELD", change
        assert facts["field"].endswith(f"profile.{field}".removesuffix(".profile")), facts


async def test_versions_are_compared(admin: Desk) -> None:
    moved = {
        **NUMBERS,
        "null_count": 208,
        "count": 1_210,
        "min": 50.0,
        "quantiles": [50.0 + place for place in range(101)],
        "max": 150.0,
    }
    texts = {**TEXTS, "top_values": [*TEXTS["top_values"][:2], {"value": "Bonn", "count": 10}]}
    base = await made(admin, draft("c", NUMBERS, TEXTS, NUMBERS))
    other = await made(admin, draft("d", moved, texts, x="float32"))
    found = await compared(admin, base.name, other.name)
    assert (found.base, found.other, found.same_digest) == (base.name, other.name, False)
    assert [(c.column, c.kind) for c in found.schema_changes] == [
        ("x", dataset_difference_pb2.SCHEMA_CHANGE_KIND_TYPE_CHANGED),
        ("more", dataset_difference_pb2.SCHEMA_CHANGE_KIND_REMOVED),
    ]
    x, city = found.columns
    assert (x.drifted, city.drifted, found.drifted_column_count) == (True, False, 1)
    assert x.psi > x.psi_threshold == 0.1
    assert 0 < x.js_distance < 1
    assert {change.kind for change in x.quality_changes} == {
        dataset_difference_pb2.QUALITY_CHANGE_KIND_MORE_NULLS,
        dataset_difference_pb2.QUALITY_CHANGE_KIND_OUT_OF_RANGE,
    }
    (new,) = city.quality_changes
    assert new.kind == dataset_difference_pb2.QUALITY_CHANGE_KIND_NEW_CATEGORIES
    assert "Bonn" in new.description
    same = await compared(admin, base.name, base.name)
    assert same.same_digest
    assert not same.columns


async def test_what_cannot_be_compared_is_refused(admin: Desk) -> None:
    version = await made(admin, draft("e", NUMBERS))
    for base, other, wanted in (
        (version.name, f"{PARENT}/versions/99", "RESOURCE_NOT_FOUND"),
        (version.name, "projects/other/datasets/prices/versions/1", "INVALID_FIELD"),
        ("prices", version.name, "INVALID_NAME"),
    ):
        _, reason = await admin.refused(admin.datasets.CompareDatasets, comparison(base, other))
        assert reason == wanted
