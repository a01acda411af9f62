"""Modelyard: a self-hosted model registry platform.

Importing this package is quick: names are imported from their modules when they
are first used, and grpc with the first client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard._build_spec import BuildOptions, GitSource
    from modelyard._client import AsyncClient, Client
    from modelyard._transfers.cache import Cache
    from modelyard._transfers.progress import Progress
    from modelyard.bundle import BundleError
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
    from modelyard.model import Context, Model
    from modelyard.rollouts import Analysis, Autoscaling, Batching, Sampling, Serving
    from modelyard.tracking import (
        ActiveRun,
        active_run,
        log_dataset,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        set_tag,
        set_tags,
        start_run,
    )
    from modelyard.tracking.models import log_model

# Name → module that defines it. To publish another name, add it here, to the
# imports above and to __all__.
_HOMES = {
    "BuildOptions": "modelyard._build_spec",
    "GitSource": "modelyard._build_spec",
    "Cache": "modelyard._transfers.cache",
    "Progress": "modelyard._transfers.progress",
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
    "ActiveRun": "modelyard.tracking",
    "active_run": "modelyard.tracking",
    "log_dataset": "modelyard.tracking",
    "log_metric": "modelyard.tracking",
    "log_metrics": "modelyard.tracking",
    "log_param": "modelyard.tracking",
    "log_params": "modelyard.tracking",
    "set_tag": "modelyard.tracking",
    "set_tags": "modelyard.tracking",
    "start_run": "modelyard.tracking",
    "Context": "modelyard.model",
    "Model": "modelyard.model",
    "BundleError": "modelyard.bundle",
    "log_model": "modelyard.tracking.models",
    "Analysis": "modelyard.rollouts",
    "Autoscaling": "modelyard.rollouts",
    "Batching": "modelyard.rollouts",
    "Sampling": "modelyard.rollouts",
    "Serving": "modelyard.rollouts",
}

__all__ = [
    "AbortedError",
    "ActiveRun",
    "AlreadyExistsError",
    "Analysis",
    "AsyncClient",
    "Autoscaling",
    "Batching",
    "BuildOptions",
    "BundleError",
    "Cache",
    "Client",
    "ConfigError",
    "Context",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "GateRefusedError",
    "GitSource",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "ModelyardError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "Progress",
    "ResourceExhaustedError",
    "Sampling",
    "Serving",
    "UnauthenticatedError",
    "UnavailableError",
    "active_run",
    "log_dataset",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_param",
    "log_params",
    "set_tag",
    "set_tags",
    "start_run",
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
