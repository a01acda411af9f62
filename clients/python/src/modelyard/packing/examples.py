"""Examples: the inputs of one request, as an infer request of the Open Inference Protocol v2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.bundle import BundleError

DEFAULT_INPUT = "input-0"


def infer_request(example: Any) -> dict[str, Any]:
    """Return the JSON body of the request that an example stands for.

    Args:
        example: A mapping of name → array, a data frame (its columns), or one array.

    Raises:
        BundleError: Its values have no place in a request.
    """
    import numpy as np  # noqa: PLC0415 - tracking works without numpy

    inputs = {name: np.asarray(value) for name, value in _named(example).items()}
    return {"inputs": [_tensor(name, array) for name, array in inputs.items()]}


def _named(example: Any) -> dict[str, Any]:
    if isinstance(example, Mapping):
        return {str(name): value for name, value in example.items()}
    if hasattr(example, "columns"):
        return {str(name): example[name] for name in example.columns}
    return {DEFAULT_INPUT: example}


def _tensor(name: str, array: Any) -> dict[str, Any]:
    from modelyard.serving.tensors import datatype_of, to_values  # noqa: PLC0415 - needs numpy

    try:
        values = to_values(array)
        datatype = datatype_of(array)
    except TypeError as error:
        raise BundleError(f"example input {name!r}: {error}") from error
    if any(value is None for value in values):
        raise BundleError(f"example input {name!r} holds NaN or infinity, which JSON cannot say")
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": values}
