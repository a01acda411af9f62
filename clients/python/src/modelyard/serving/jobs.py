"""Jobs: one request as bytes in, one answer as bytes out.

Reading, predicting and writing are one piece of work, done wherever the model is: in a thread of
this process or in a worker process. Nothing but bytes goes between the edge and the model.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from modelyard.serving import grpc_codec, http_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import Refusal, ServingError, invalid
from modelyard.serving.engine import Engine

logger = logging.getLogger(__name__)


class Protocol(IntEnum):
    """How a request came."""

    HTTP = 1
    GRPC = 2


@dataclass(frozen=True, slots=True)
class Job:
    """One infer request."""

    protocol: Protocol
    body: bytes
    json_length: int | None = None
    """Of HTTP: where the JSON ends and raw tensors begin; None: it is all JSON."""


@dataclass(frozen=True, slots=True)
class Result:
    """One answer."""

    body: bytes
    json_length: int | None = None


Outcome = Result | ServingError


def perform(engine: Engine, job: Job) -> Outcome:
    """Do a job; never raises."""
    try:
        return _http(engine, job) if job.protocol is Protocol.HTTP else _grpc(engine, job)
    except ServingError as error:
        return error
    except Exception:
        logger.exception("request failed")
        return ServingError(Refusal.FAILED, "internal error")


def _http(engine: Engine, job: Job) -> Result:
    request, form = http_codec.decode(job.body, job.json_length)
    outputs = engine.answer(request)
    return Result(*http_codec.encode(outputs, engine.description, request, form))


def _grpc(engine: Engine, job: Job) -> Result:
    try:
        message = pb.ModelInferRequest.FromString(job.body)
    except DecodeError:
        raise invalid("the request is no ModelInferRequest") from None
    engine.description.check(message.model_name, message.model_version)
    request = grpc_codec.decode(message)
    outputs = engine.answer(request)
    raw = bool(message.raw_input_contents)
    answer = grpc_codec.encode(outputs, engine.description, request, raw=raw)
    return Result(answer.SerializeToString())
