"""Modelyard: a self-hosted model registry platform.

Importing this package is quick: names are imported from their modules when they
are first used, and grpc with the first client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard._client import AsyncClient, Client
    from modelyard.errors import (
        AbortedError,
        AlreadyExistsError,
        ConfigError,
        DataLossError,
        DeadlineExceededError,
        FailedPreconditionError,
        GateRefusedError,
        InternalError,
        InvalidArgumentError,
        ModelyardError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        ResourceExhaustedError,
        UnauthenticatedError,
        UnavailableError,
    )

# Name → module that defines it. To publish another name, add it here, to the
# imports above and to __all__.
_HOMES = {
    "AsyncClient": "modelyard._client",
    "Client": "modelyard._client",
    "AbortedError": "modelyard.errors",
    "AlreadyExistsError": "modelyard.errors",
    "ConfigError": "modelyard.errors",
    "DataLossError": "modelyard.errors",
    "DeadlineExceededError": "modelyard.errors",
    "FailedPreconditionError": "modelyard.errors",
    "GateRefusedError": "modelyard.errors",
    "InternalError": "modelyard.errors",
    "InvalidArgumentError": "modelyard.errors",
    "ModelyardError": "modelyard.errors",
    "NotFoundError": "modelyard.errors",
    "OutOfRangeError": "modelyard.errors",
    "PermissionDeniedError": "modelyard.errors",
    "ResourceExhaustedError": "modelyard.errors",
    "UnauthenticatedError": "modelyard.errors",
    "UnavailableError": "modelyard.errors",
}

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "Client",
    "ConfigError",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "GateRefusedError",
    "InternalError",
    "InvalidArgumentError",
    "ModelyardError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "UnauthenticatedError",
    "UnavailableError",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
