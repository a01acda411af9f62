from __future__ import annotations

from collections.abc import Callable

import grpc
import modelyard
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from modelyard import AsyncClient, Client
from modelyard.deployer.v1 import deployment_service_pb2, deployment_service_pb2_grpc
from modelyard.errors import ModelyardError, Violation
from modelyard.metadata.v1 import (
    alias_pb2,
    comparison_pb2,
    comparison_service_pb2,
    comparison_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    version_pb2,
)

Connect = Callable[[Callable[[grpc.Server], None]], Client]
Context = grpc.ServicerContext


def fail(context: Context, code: grpc.StatusCode, message: str, *details: object) -> None:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)  # type: ignore[arg-type]
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, message)


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self) -> None:
        self.requests: list[object] = []
        self.metadata: dict[str, object] = {}
        self.remaining = 0.0
        self.unavailable = 0

    def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Context
    ) -> model_service_pb2.GetModelResponse:
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        return model_service_pb2.GetModelResponse(model=model_pb2.Model(name=request.name))

    def CreateModel(
        self, request: model_service_pb2.CreateModelRequest, context: Context
    ) -> model_service_pb2.CreateModelResponse:
        self.requests.append(request)
        if len(self.requests) <= self.unavailable:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return model_service_pb2.CreateModelResponse(model=request.model)

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        self.requests.append(request)
        page = int(request.page_token or 0)
        names = [model_pb2.Model(name=f"m{page}a"), model_pb2.Model(name=f"m{page}b")]
        token = str(page + 1) if page < 2 else ""
        return model_service_pb2.ListModelsResponse(models=names, next_page_token=token)

    def UpdateAlias(
        self, request: model_service_pb2.UpdateAliasRequest, context: Context
    ) -> model_service_pb2.UpdateAliasResponse:
        self.requests.append(request)
        info = error_details_pb2.ErrorInfo(
            reason="ALIAS_MOVED", domain="modelyard.dev", metadata={"version": "v5"}
        )
        if request.HasField("expected_version"):
            fail(context, grpc.StatusCode.ABORTED, "the alias moved", info)
        return model_service_pb2.UpdateAliasResponse(alias=request.alias)

    def DeleteAlias(
        self, request: model_service_pb2.DeleteAliasRequest, context: Context
    ) -> model_service_pb2.DeleteAliasResponse:
        self.requests.append(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        raise AssertionError

    def ResolveVersion(
        self, request: model_service_pb2.ResolveVersionRequest, context: Context
    ) -> model_service_pb2.ResolveVersionResponse:
        version = version_pb2.Version(name="projects/shop/models/churn/versions/9")
        return model_service_pb2.ResolveVersionResponse(version=version)


class Comparisons(comparison_service_pb2_grpc.ComparisonServiceServicer):
    def Compare(
        self, request: comparison_service_pb2.CompareRequest, context: Context
    ) -> comparison_service_pb2.CompareResponse:
        items = [comparison_pb2.ComparedItem(name=name) for name in request.names]
        return comparison_service_pb2.CompareResponse(items=items)


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def client(models: Models, connect: Connect) -> Client:
    def add(server: grpc.Server) -> None:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
        comparison_service_pb2_grpc.add_ComparisonServiceServicer_to_server(Comparisons(), server)

    return connect(add)


def test_calls_carry_the_credential_and_a_deadline(client: Client, models: Models) -> None:
    assert client.models.get("churn").name == "projects/shop/models/churn"
    assert models.metadata["authorization"] == "Bearer secret"
    assert 8 < models.remaining < 11
    client.with_options(timeout=30, project="other").models.get("churn")
    assert 28 < models.remaining < 31


def test_calls_carry_the_trace_of_a_program_that_traces(client: Client, models: Models) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("test").start_as_current_span("deploy") as span:
        client.models.get("churn")
    trace_id = format(span.get_span_context().trace_id, "032x")
    assert trace_id in str(models.metadata["traceparent"])


def test_a_retry_repeats_the_request_id(client: Client, models: Models) -> None:
    models.unavailable = 2
    client.models.create("churn")
    ids = [getattr(request, "request_id", "") for request in models.requests]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


def test_what_takes_no_request_id_is_not_repeated(client: Client, models: Models) -> None:
    with pytest.raises(modelyard.UnavailableError):
        client.aliases.delete("churn", "production")
    assert len(models.requests) == 1


def test_lists_are_read_when_they_are_wanted(client: Client, models: Models) -> None:
    listed = client.models.list()
    assert models.requests == []
    assert next(listed).name == "m0a"
    assert len(models.requests) == 1
    assert [model.name for model in listed] == ["m0b", "m1a", "m1b", "m2a", "m2b"]


def test_an_alias_moves_only_from_where_it_was(client: Client, models: Models) -> None:
    assert client.aliases.set("churn", "production", version=7) == alias_pb2.Alias(
        name="projects/shop/models/churn/aliases/production",
        version="projects/shop/models/churn/versions/7",
    )
    with pytest.raises(modelyard.AbortedError) as caught:
        client.aliases.set("churn", "production", version=7, if_version=6, reason="beats 6")
    assert (caught.value.reason, caught.value.metadata) == ("ALIAS_MOVED", {"version": "v5"})
    with pytest.raises(modelyard.AbortedError):
        client.aliases.set("churn", "production", version=7, if_version=0)
    sent = [getattr(request, "expected_version", None) for request in models.requests]
    assert sent == ["", "projects/shop/models/churn/versions/6", ""]


def test_comparing_resolves_aliases_first(client: Client) -> None:
    compared = client.versions.compare(["churn/3", "churn@production"])
    assert [item.name.rpartition("/")[2] for item in compared.items] == ["3", "9"]


def test_anything_can_be_compared_with_anything(client: Client) -> None:
    build, model = "b-0123456789abcdef", "projects/shop/models/churn"
    wanted = {
        "churn/3": f"{model}/versions/3",
        "churn": f"{model}/versions/9",
        f"{model}/aliases/production": f"{model}/versions/9",
        "churn/r-1": f"{model}/runs/r-1",
        "churn/runs/r-1": f"{model}/runs/r-1",
        f"{model}/runs/r-1": f"{model}/runs/r-1",
        build: f"projects/shop/builds/{build}",
        "builds/mine": "projects/shop/builds/mine",
    }
    assert [item.name for item in client.compare(list(wanted)).items] == list(wanted.values())
    assert client.builds.compare(["mine"]).items[0].name == "projects/shop/builds/mine"
    assert client.runs.compare(["churn/r-1"]).items[0].name == f"{model}/runs/r-1"


async def test_the_async_twin_does_the_same(client: Client, models: Models) -> None:
    async with AsyncClient(client.settings.server, token="secret", project="shop") as twin:
        assert (await twin.models.get("churn")).name == "projects/shop/models/churn"
        assert models.metadata["authorization"] == "Bearer secret"
        assert [model.name async for model in twin.models.list()][-1] == "m2b"
        compared = await twin.versions.compare(["churn/3", "churn@production"])
        assert len(compared.items) == 2
        assert len((await twin.compare(["churn", "churn/r-1"])).items) == 2
        with pytest.raises(modelyard.AbortedError, match="the alias moved"):
            await twin.aliases.set("churn", "production", version=7, if_version=6)


class Gate(deployment_service_pb2_grpc.DeploymentServiceServicer):
    def DeployVersion(
        self, request: deployment_service_pb2.DeployVersionRequest, context: Context
    ) -> deployment_service_pb2.DeployVersionResponse:
        info = error_details_pb2.ErrorInfo(
            reason="GATE_REFUSED", domain="modelyard.dev", metadata={"gate": "f1-floor"}
        )
        fail(context, grpc.StatusCode.FAILED_PRECONDITION, "f1 0.4 is below 0.7", info)
        raise AssertionError

    def StopDeployment(
        self, request: deployment_service_pb2.StopDeploymentRequest, context: Context
    ) -> deployment_service_pb2.StopDeploymentResponse:
        violation = error_details_pb2.BadRequest.FieldViolation(field="etag", description="long")
        fail(
            context,
            grpc.StatusCode.INVALID_ARGUMENT,
            "no",
            error_details_pb2.ErrorInfo(reason="INVALID_FIELD"),
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        )
        raise AssertionError


def test_errors_are_typed_by_status_and_reason(connect: Connect) -> None:
    client = connect(
        lambda server: deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(
            Gate(),
            server,
        )
    )
    with pytest.raises(modelyard.GateRefusedError) as refused:
        client.deployments.deploy("churn/7", environment="production")
    assert refused.value.metadata == {"gate": "f1-floor"}
    assert refused.value.code == "FAILED_PRECONDITION"
    with pytest.raises(modelyard.InvalidArgumentError) as bad:
        client.deployments.stop("churn", environment="production")
    assert bad.value.violations == (Violation("etag", "long"),)
    assert bad.value.retry_delay == 1.5
    assert "etag: long" in str(bad.value)
    with pytest.raises(ModelyardError) as unknown:
        client.models.get("churn")
    assert unknown.value.reason == "UNKNOWN_METHOD"


def test_a_server_out_of_reach_is_named() -> None:
    with (
        Client("127.0.0.1:1", token="t", timeout=0.5) as client,
        pytest.raises((modelyard.UnavailableError, modelyard.DeadlineExceededError)) as caught,
    ):
        client.models.get("churn")
    assert "127.0.0.1:1" in str(caught.value)
