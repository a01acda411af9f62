"""The gRPC edge of the model server."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from modelyard.serving import grpc_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import EXTENSIONS, SERVER_NAME, VERSION_HEADER, Refusal, ServingError
from modelyard.serving.gate import Gate
from modelyard.serving.jobs import Job, Protocol

Context = grpc.aio.ServicerContext[Any, Any]

_CODES = {
    Refusal.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Refusal.FAILED: grpc.StatusCode.INTERNAL,
}


_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


def add_to(server: grpc.aio.Server, gate: Gate) -> None:
    """Have a server answer the protocol's RPCs.

    Infer requests and their answers stay the bytes that they are: whoever predicts reads them.
    """
    servicer = InferenceServicer(gate)
    handlers: dict[str, Any] = {
        "ServerLive": _unary(servicer.ServerLive, pb.ServerLiveRequest),
        "ServerReady": _unary(servicer.ServerReady, pb.ServerReadyRequest),
        "ServerMetadata": _unary(servicer.ServerMetadata, pb.ServerMetadataRequest),
        "ModelReady": _unary(servicer.ModelReady, pb.ModelReadyRequest),
        "ModelMetadata": _unary(servicer.ModelMetadata, pb.ModelMetadataRequest),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(servicer.ModelInfer),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, handlers),),
    )


def _unary(method: Any, request: type[Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method,
        request_deserializer=request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


class InferenceServicer:
    """Answers the protocol's RPCs through a gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Say that the server lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Say whether new requests are welcome."""
        return pb.ServerReadyResponse(ready=self._gate.is_ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Say whether the model is ready."""
        await self._check(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self._gate.is_ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        """Describe the server."""
        return pb.ServerMetadataResponse(
            name=SERVER_NAME, version=version("modelyard"), extensions=EXTENSIONS
        )

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        """Describe the model."""
        await self._check(request.name, request.version, context)
        return grpc_codec.describe(self._gate.description)

    async def ModelInfer(self, message: bytes, context: Context) -> bytes:
        """Answer a serialized ModelInferRequest with a serialized ModelInferResponse."""
        try:
            result = await self._gate.infer(Job(Protocol.GRPC, message))
        except ServingError as error:
            await _refuse(error, context)
        # With the trailers: initial metadata of its own would be one more turn of the server.
        context.set_trailing_metadata(((VERSION_HEADER, self._gate.description.version),))
        return result.body

    async def _check(self, name: str, version: str, context: Context) -> None:
        try:
            self._gate.description.check(name, version)
        except ServingError as error:
            await _refuse(error, context)


async def _refuse(error: ServingError, context: Context) -> NoReturn:
    await context.abort(_CODES[error.refusal], error.message)
