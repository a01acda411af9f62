"""Texts with NUL are found wherever in a request they are."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from modelyard.builder.v1 import build_pb2, build_service_pb2, secret_service_pb2
from modelyard.metadata.v1 import dataset_service_pb2

from services.common.errors import Reason, ServiceError
from services.common.rpc.texts import check_texts

Build, Spec = build_pb2.Build, build_pb2.BuildSpec


def order(**fields: object) -> Message:
    spec = Spec(**fields)  # type: ignore[arg-type]
    return build_service_pb2.CreateBuildRequest(build=Build(spec=spec))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (secret_service_pb2.UpdateSecretRequest(description="a\0"), "description"),
        (order(entry="\0"), "build.spec.entry"),
        (order(aliases=["good", "b\0d"]), "build.spec.aliases"),
        (order(labels={"\0": "x"}), "build.spec.labels"),
        (order(variables={"x": "\0"}), "build.spec.variables"),
        (order(git=build_pb2.GitSource(ref="\0")), "build.spec.git.ref"),
        (order(data=[build_pb2.DataInput(name="\0")]), "build.spec.data.name"),
    ],
)
def test_where_there_is_nul(request_: Message, field: str) -> None:
    with pytest.raises(ServiceError) as caught:
        check_texts(request_)
    assert (caught.value.reason, caught.value.metadata["field"]) == (Reason.INVALID_FIELD, field)


def test_within_values() -> None:
    request = build_service_pb2.CreateBuildRequest()
    inner = request.build.spec.params["k"].list_value.values.add().list_value.values.add()
    inner.string_value = "\0"
    with pytest.raises(ServiceError):
        check_texts(request)
    inner.string_value = "good"
    check_texts(request)


def test_data_of_others_is_as_it_is() -> None:
    request = dataset_service_pb2.CreateDatasetVersionRequest()
    column = request.dataset_version.schema.add(name="a")
    column.profile.top_values.add(value="\0")
    check_texts(request)
    column.name = "\0"
    with pytest.raises(ServiceError):
        check_texts(request)
