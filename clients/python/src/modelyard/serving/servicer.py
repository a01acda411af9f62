"""The gRPC edge of the model server."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any, NoReturn

import grpc

from modelyard.serving import grpc_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc
from modelyard.serving.domain import EXTENSIONS, SERVER_NAME, VERSION_HEADER, Refusal, ServingError
from modelyard.serving.engine import Engine

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

_CODES = {
    Refusal.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    Refusal.FAILED: grpc.StatusCode.INTERNAL,
}


class InferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Answers the protocol's RPCs from an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: Context
    ) -> pb.ServerLiveResponse:
        """Say that the server lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        """Say whether new requests are welcome."""
        return pb.ServerReadyResponse(ready=self._engine.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: Context
    ) -> pb.ModelReadyResponse:
        """Say whether the model is ready."""
        await self._check(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self._engine.ready)

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
        return grpc_codec.describe(self._engine.description)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: Context
    ) -> pb.ModelInferResponse:
        """Predict."""
        await self._check(request.model_name, request.model_version, context)
        try:
            answer = await self._engine.run(lambda: self._infer(request))
        except ServingError as error:
            await _refuse(error, context)
        except Exception:
            logger.exception("request failed")
            await _refuse(ServingError(Refusal.FAILED, "internal error"), context)
        await context.send_initial_metadata(((VERSION_HEADER, self._engine.description.version),))
        return answer

    def _infer(self, message: pb.ModelInferRequest) -> pb.ModelInferResponse:
        request = grpc_codec.decode(message)
        outputs = self._engine.answer(request)
        raw = bool(message.raw_input_contents)
        return grpc_codec.encode(outputs, self._engine.description, request, raw=raw)

    async def _check(self, name: str, version: str, context: Context) -> None:
        try:
            self._engine.description.check(name, version)
        except ServingError as error:
            await _refuse(error, context)


async def _refuse(error: ServingError, context: Context) -> NoReturn:
    await context.abort(_CODES[error.refusal], error.message)
