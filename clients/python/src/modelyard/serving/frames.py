"""Frames: what the server and its worker processes send each other over a socket.

A header (number of the job, what it is, a number that goes with it, length, requests
predicted together) and that many bytes.
The first frame of a worker is its greeting: the description of what it has loaded.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass

from modelyard.serving.domain import Description, Refusal, ServingError, TensorDescription
from modelyard.serving.jobs import Job, Outcome, Protocol, Result

HEADER = struct.Struct("<IBqQI")
_GREETING = 0
_ANSWERED = 255
_NONE = -1
_REFUSALS = tuple(Refusal)


@dataclass(frozen=True, slots=True)
class Head:
    """The header of a frame."""

    number: int
    kind: int
    extra: int
    length: int
    batch_size: int


def head_of(data: bytes) -> Head:
    """Read a header."""
    return Head(*HEADER.unpack(data))


def encode_job(number: int, job: Job) -> tuple[bytes, bytes]:
    """Return the header and the bytes of a job."""
    length = _NONE if job.json_length is None else job.json_length
    return HEADER.pack(number, job.protocol, length, len(job.body), 0), job.body


def decode_job(head: Head, body: bytes) -> Job:
    """Read a job."""
    return Job(Protocol(head.kind), body, None if head.extra == _NONE else head.extra)


def encode_outcome(number: int, outcome: Outcome) -> tuple[bytes, bytes]:
    """Return the header and the bytes of what came of a job."""
    if isinstance(outcome, Result):
        length = _NONE if outcome.json_length is None else outcome.json_length
        size = outcome.batch_size
        return HEADER.pack(number, _ANSWERED, length, len(outcome.body), size), outcome.body
    text = outcome.message.encode()
    return HEADER.pack(number, _REFUSALS.index(outcome.refusal), _NONE, len(text), 0), text


def decode_outcome(head: Head, body: bytes) -> Outcome:
    """Read what came of a job."""
    if head.kind == _ANSWERED:
        return Result(body, None if head.extra == _NONE else head.extra, head.batch_size)
    return ServingError(_REFUSALS[head.kind], body.decode())


def encode_greeting(description: Description) -> tuple[bytes, bytes]:
    """Return the header and the bytes of a worker's greeting."""
    document = asdict(description) | {"text_inputs": sorted(description.text_inputs)}
    body = json.dumps(document).encode()
    return HEADER.pack(_GREETING, 0, _NONE, len(body), 0), body


def decode_greeting(body: bytes) -> Description:
    """Read a worker's greeting."""
    document = json.loads(body)
    return Description(
        name=document["name"],
        version=document["version"],
        platform=document["platform"],
        inputs=tuple(_tensor(**tensor) for tensor in document["inputs"]),
        outputs=tuple(_tensor(**tensor) for tensor in document["outputs"]),
        text_inputs=frozenset(document["text_inputs"]),
    )


def _tensor(name: str, datatype: str, shape: list[int]) -> TensorDescription:
    return TensorDescription(name, datatype, tuple(shape))
