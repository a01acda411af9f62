"""HTTP bodies of the protocol, with the binary tensor extension, from and to requests.

With the extension a body is JSON followed by the raw bytes of some tensors, in their order; the
header `Inference-Header-Content-Length` says where the JSON ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from modelyard.serving import tensors
from modelyard.serving.domain import Description, Request, Tensor, TensorDescription, invalid
from modelyard.serving.tensors import Array, TensorError

_PLAIN_KINDS = "biuf"
"""What the encoder of JSON writes as it is, NaN and infinity as null."""
_UNSUPPORTED = ("shared_memory_region", "classification")


@dataclass(frozen=True, slots=True)
class WantedForm:
    """Which outputs are wanted as raw bytes: all, or the named ones."""

    all_raw: bool
    raw: Mapping[str, bool]

    def is_raw(self, name: str) -> bool:
        """Say whether an output is wanted as raw bytes."""
        return self.raw.get(name, self.all_raw)


def decode(body: bytes, json_length: int | None) -> tuple[Request, WantedForm]:
    """Read the body of an infer request; raise ServingError INVALID when it is none."""
    if json_length is not None and json_length > len(body):
        raise invalid("Inference-Header-Content-Length exceeds the body")
    end = len(body) if json_length is None else json_length
    document = _object(_json(memoryview(body)[:end]), "the request")
    raw = memoryview(body)[end:]
    inputs = _inputs(_objects(document, "inputs"), raw)
    parameters = _object(document.get("parameters", {}), "parameters")
    wanted = {_name(output): _parameters(output) for output in _objects(document, "outputs")}
    form = WantedForm(
        all_raw=parameters.get("binary_data_output") is True,
        raw={name: given.get("binary_data") is True for name, given in wanted.items()},
    )
    identifier = document.get("id", "")
    if not isinstance(identifier, str):
        raise invalid("id must be a text")
    return Request(inputs=inputs, outputs=tuple(wanted), id=identifier), form


def encode(
    outputs: Mapping[str, Array], description: Description, request: Request, form: WantedForm
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON when raw bytes follow."""
    parts: list[bytes] = []
    heads = [_output(name, array, form, parts) for name, array in outputs.items()]
    document: dict[str, Any] = {
        "model_name": description.name,
        "model_version": description.version,
        "outputs": heads,
    }
    if request.id:
        document["id"] = request.id
    head = dump(document)
    return b"".join([head, *parts]), len(head) if any(form.is_raw(n) for n in outputs) else None


def decode_answer(body: bytes, json_length: int | None) -> dict[str, Tensor]:
    """Read the outputs of an answer; those with what JSON cannot say (NaN, ±∞) are left out."""
    end = len(body) if json_length is None else json_length
    given = _objects(_object(_json(memoryview(body)[:end]), "the answer"), "outputs")
    sayable = [tensor for tensor in given if None not in tensor.get("data", ())]
    return _inputs(sayable, memoryview(body)[end:]) if sayable else {}


def dump(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def describe(description: Description) -> dict[str, Any]:
    """Return the document that describes the model."""
    return {
        "name": description.name,
        "versions": [description.version],
        "platform": description.platform,
        "inputs": [_describe_tensor(tensor) for tensor in description.inputs],
        "outputs": [_describe_tensor(tensor) for tensor in description.outputs],
    }


def _describe_tensor(tensor: TensorDescription) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _inputs(given: list[dict[str, Any]], raw: memoryview) -> dict[str, Tensor]:
    if not given:
        raise invalid("inputs must not be empty")
    inputs: dict[str, Tensor] = {}
    place = 0
    for tensor in given:
        name, parameters = _name(tensor), _parameters(tensor)
        if name in inputs:
            raise invalid(f"input {name!r} is given twice")
        size = parameters.get("binary_data_size")
        if size is not None and (type(size) is not int or not 0 <= size <= len(raw) - place):
            raise invalid(f"input {name!r}: binary_data_size does not fit the body")
        part = None if size is None else raw[place : place + size]
        place += size or 0
        array = _array(name, tensor, part)
        inputs[name] = Tensor(array, is_text=parameters.get("content_type") == "str")
    if place != len(raw):
        raise invalid("the body is longer than its tensors")
    return inputs


def _array(name: str, tensor: dict[str, Any], raw: memoryview | None) -> Array:
    datatype = tensor.get("datatype")
    try:
        shape = tensors.check_shape(tensor.get("shape"))
        if not isinstance(datatype, str):
            raise TensorError("datatype must be a text")
        if raw is not None:
            return tensors.from_raw(datatype, shape, raw)
        return tensors.from_values(datatype, shape, tensor.get("data"))
    except TensorError as error:
        raise invalid(f"input {name!r}: {error}") from None


def _output(name: str, array: Array, form: WantedForm, parts: list[bytes]) -> dict[str, Any]:
    head = {"name": name, "datatype": tensors.datatype_of(array), "shape": list(array.shape)}
    if form.is_raw(name):
        parts.append(tensors.to_raw(array))
        return head | {"parameters": {"binary_data_size": len(parts[-1])}}
    try:
        return head | {"data": _values(array)}
    except TensorError as error:
        raise invalid(f"output {name!r}: {error}") from None


def _values(array: Array) -> Array | list[Any]:
    """Return the elements as what the encoder of JSON can write, row by row."""
    dtype = array.dtype
    if dtype.kind in _PLAIN_KINDS and dtype.isnative and dtype != np.float16:
        return np.ascontiguousarray(array).reshape(-1)
    return tensors.to_values(array)


def _json(text: bytes | memoryview) -> object:
    try:
        value: object = orjson.loads(text)  # which takes neither NaN nor Infinity
    except ValueError:
        raise invalid("the request is not JSON") from None
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{what} must be a JSON object")
    return value


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = document.get(key, [])
    if not isinstance(values, list):
        raise invalid(f"{key} must be a list")
    return [_object(value, f"each of {key}") for value in values]


def _name(tensor: dict[str, Any]) -> str:
    name = tensor.get("name")
    if not isinstance(name, str) or not name:
        raise invalid("each input and output must have a name")
    return name


def _parameters(tensor: dict[str, Any]) -> dict[str, Any]:
    parameters = _object(tensor.get("parameters", {}), "parameters")
    for key in _unsupported(parameters):
        raise invalid(f"{key} is not supported")
    return parameters


def _unsupported(parameters: Mapping[str, Any]) -> Iterator[str]:
    return (key for key in _UNSUPPORTED if key in parameters)
