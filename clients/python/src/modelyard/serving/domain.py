"""What the model server speaks about: requests, predictions, descriptions and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelyard.serving.tensors import Array

SERVER_NAME = "modelyard"
EXTENSIONS = ("binary_tensor_data",)
VERSION_HEADER = "modelyard-version"
MAX_REQUEST_BYTES = 64 * 1024 * 1024


class Refusal(StrEnum):
    """Why a request was not answered."""

    NOT_FOUND = "not found"
    INVALID = "invalid"
    TOO_LARGE = "too large"
    OVERLOADED = "overloaded"
    NOT_READY = "not ready"
    FAILED = "failed"


class ServingError(Exception):
    """A request that is not answered; the text may be shown to the caller."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.message = message


def invalid(message: str) -> ServingError:
    """Return the error for a request that can never be answered."""
    return ServingError(Refusal.INVALID, message)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input: its array, and whether the request says that its bytes are text."""

    array: Array
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the model."""

    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """The name, datatype and shape (-1: any size) of an input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of the model; no inputs or outputs: they are not known."""

    name: str
    version: str
    platform: str
    inputs: tuple[TensorDescription, ...] = ()
    outputs: tuple[TensorDescription, ...] = ()
    text_inputs: frozenset[str] = field(default_factory=frozenset)

    def check(self, name: str, version: str) -> None:
        """Raise NOT_FOUND unless this is the model, and the version or none, that is asked for."""
        if name != self.name:
            raise ServingError(Refusal.NOT_FOUND, f"model {name!r} is not served here")
        if version not in ("", self.version):
            message = f"version {version!r} of {name!r} is not served here: {self.version} is"
            raise ServingError(Refusal.NOT_FOUND, message)
