"""Jobs: one request as bytes in, one answer as bytes out.

Reading, predicting and writing are one piece of work, done wherever the model is: in a thread of
this process or in a worker process. Nothing but bytes goes between the edge and the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeVar

from google.protobuf.message import DecodeError

from modelyard.serving import grpc_codec, http_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import Refusal, Request, ServingError, invalid
from modelyard.serving.engine import Answer, Engine
from modelyard.serving.tensors import Array

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
    batch_size: int = 0
    """How many requests were predicted together; 0: none are."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A request that was read, and how its answer is written."""

    request: Request
    encode: Callable[[dict[str, Array]], Result]


Outcome = Result | ServingError


def perform(engine: Engine, job: Job) -> Outcome:
    """Do a job; never raises."""
    return _settled(lambda: _do(engine, job))


def perform_all(engine: Engine, jobs: Sequence[Job]) -> list[Outcome]:
    """Do jobs together as far as their inputs can be joined, each as if alone; never raises."""
    opened = [_settled(lambda: _open(engine, job)) for job in jobs]  # noqa: B023 - called at once
    requests = [found.request for found in opened if isinstance(found, _Opened)]
    answered = _settled(lambda: engine.answer_all(requests))
    if isinstance(answered, ServingError):  # which is a fault of ours
        return [perform(engine, job) for job in jobs]
    answers = iter(answered)
    return [
        found if isinstance(found, ServingError) else _closed(found, *next(answers))
        for found in opened
    ]


def _do(engine: Engine, job: Job) -> Result:
    opened = _open(engine, job)
    return opened.encode(engine.answer(opened.request))


def _closed(opened: _Opened, answer: Answer | ServingError, size: int) -> Outcome:
    if isinstance(answer, ServingError):
        return answer
    result = _settled(lambda: opened.encode(answer))
    return result if isinstance(result, ServingError) else replace(result, batch_size=size)


def _settled(work: Callable[[], T]) -> T | ServingError:
    """Return what comes of some work, or why nothing does."""
    try:
        return work()
    except ServingError as error:
        return error
    except Exception:
        logger.exception("request failed")
        return ServingError(Refusal.FAILED, "internal error")


def _open(engine: Engine, job: Job) -> _Opened:
    return _http(engine, job) if job.protocol is Protocol.HTTP else _grpc(engine, job)


def _http(engine: Engine, job: Job) -> _Opened:
    request, form = http_codec.decode(job.body, job.json_length)

    def encode(outputs: dict[str, Array]) -> Result:
        return Result(*http_codec.encode(outputs, engine.description, request, form))

    return _Opened(request, encode)


def _grpc(engine: Engine, job: Job) -> _Opened:
    try:
        message = pb.ModelInferRequest.FromString(job.body)
    except DecodeError:
        raise invalid("the request is no ModelInferRequest") from None
    engine.description.check(message.model_name, message.model_version)
    request = grpc_codec.decode(message)
    raw = bool(message.raw_input_contents)

    def encode(outputs: dict[str, Array]) -> Result:
        answer = grpc_codec.encode(outputs, engine.description, request, raw=raw)
        return Result(answer.SerializeToString())

    return _Opened(request, encode)
