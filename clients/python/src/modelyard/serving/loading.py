"""Loading: from a bundle on disk to an engine, verified first and tried once on its example."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from modelyard import loaders
from modelyard.bundle import LOCK_FILE, Bundle, BundleError, Predictor
from modelyard.serving import http_codec
from modelyard.serving.domain import (
    Description,
    Request,
    ServingError,
    TensorDescription,
)
from modelyard.serving.engine import Engine
from modelyard.serving.tensors import BYTES, Array, datatype_of

logger = logging.getLogger(__name__)


def load_engine(bundle: Bundle, *, name: str, version: str) -> Engine:
    """Verify a bundle, load its model and return the engine that asks it.

    Raises:
        BundleError: The bundle is not what it says it is.
        Exception: Whatever the model's own code raises.
    """
    verify_environment(bundle)
    predictor = loaders.load(bundle)
    plain = Description(name=name, version=version, platform=f"modelyard_{bundle.loader}")
    if bundle.example is None:
        return Engine(predictor, plain)
    request = _example(bundle.example)
    described = Description(
        name=name,
        version=version,
        platform=plain.platform,
        inputs=tuple(_describe(key, tensor.array) for key, tensor in request.inputs.items()),
        outputs=(),
        text_inputs=_text_inputs(bundle.example),
    )
    outputs = _warm_up(predictor, described, request)
    complete = Description(
        name=name,
        version=version,
        platform=plain.platform,
        inputs=described.inputs,
        outputs=tuple(_describe(key, array) for key, array in outputs.items()),
        text_inputs=described.text_inputs,
    )
    return Engine(predictor, complete)


def verify_environment(bundle: Bundle) -> None:
    """Raise BundleError unless the environment lock is the one the bundle was built with."""
    lock = bundle.directory / LOCK_FILE
    digest = hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else ""
    if digest != bundle.environment_digest:
        raise BundleError(f"{LOCK_FILE} is not the one this bundle was built with")


def _example(document: dict[str, Any]) -> Request:
    try:
        return http_codec.decode(json.dumps(document).encode(), None)[0]
    except ServingError as error:
        raise BundleError(f"the example is no infer request: {error.message}") from None


def _text_inputs(document: dict[str, Any]) -> frozenset[str]:
    """Name the inputs that are text: the example's own elements are, unless it says otherwise."""
    return frozenset(
        tensor["name"]
        for tensor in document["inputs"]
        if tensor["datatype"] == BYTES
        and tensor.get("parameters", {}).get("content_type", "str") == "str"
    )


def _warm_up(predictor: Predictor, description: Description, request: Request) -> dict[str, Array]:
    """Predict once, so that the first request is quick and the outputs are known."""
    try:
        return Engine(predictor, description).answer(Request(inputs=request.inputs))
    except ServingError:  # logged by the engine; whoever started the server sees it in its smoke
        return {}


def _describe(name: str, array: Array) -> TensorDescription:
    """Describe a tensor; the first dimension is the batch and may have any size."""
    shape = (-1, *array.shape[1:]) if array.ndim else ()
    return TensorDescription(name=name, datatype=datatype_of(array), shape=shape)
