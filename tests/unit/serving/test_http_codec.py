"""HTTP bodies: JSON, the binary extension, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from modelyard.serving import http_codec, tensors
from modelyard.serving.domain import Description, Refusal, ServingError

DESCRIPTION = Description(name="churn", version="7", platform="test")
X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


def body(**document: Any) -> bytes:
    return json.dumps(document).encode()


def raw_input(name: str, size: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": "FP32", "shape": [2], "parameters": parameters}


def test_raw_and_json_inputs_in_one_body() -> None:
    array = np.array([3, 4], dtype=np.float32)
    head = body(inputs=[raw_input("a", 8), X, raw_input("b", 8)], id="q")
    content = head + tensors.to_raw(array) + tensors.to_raw(array + 2)
    request, form = http_codec.decode(content, len(head))
    assert {name: t.array.tolist() for name, t in request.inputs.items()} == {
        "a": [3, 4],
        "x": [1, 2],
        "b": [5, 6],
    }
    assert request.id == "q"
    assert not form.is_raw("y")


def test_each_output_in_the_form_that_was_asked_for() -> None:
    wanted = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}]
    asked = body(inputs=[X], outputs=wanted, parameters={"binary_data_output": True})
    request, form = http_codec.decode(asked, None)
    outputs = {"y": np.array([1]), "z": np.array([2], dtype=np.int8)}
    content, length = http_codec.encode(outputs, DESCRIPTION, request, form)
    assert length is None  # a named output is JSON unless it says otherwise
    assert [output["data"] for output in json.loads(content)["outputs"]] == [[1], [2]]


def test_raw_outputs_follow_the_json() -> None:
    request, form = http_codec.decode(
        body(inputs=[X], parameters={"binary_data_output": True}), None
    )
    array = np.array([1.5, np.nan])
    content, length = http_codec.encode({"y": array}, DESCRIPTION, request, form)
    assert length is not None
    head = json.loads(content[:length])
    assert head["model_version"] == "7"
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert content[length:] == tensors.to_raw(array)


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (b"", None),
        (b"[]", None),
        (b"{" * 100_000, None),
        (b"[" * 100_000, None),
        (b"\xff", None),
        (body(inputs=[X]), 10_000),
        (body(inputs=[]), None),
        (body(inputs=[X, X]), None),
        (body(inputs=[X], id=1), None),
        (body(inputs=[X], outputs={}), None),
        (body(inputs=[X], parameters=1), None),
        (body(inputs=[X]) + b" ", len(body(inputs=[X]))),
        (body(inputs=[raw_input("x", 8)]), None),
        (body(inputs=[raw_input("x", -1)]), None),
        (body(inputs=[raw_input("x", "8")]), None),
        (body(inputs=[X | {"datatype": 1}]), None),
        (body(inputs=[X | {"shape": [3]}]), None),
        (body(inputs=[X | {"name": ""}]), None),
        (body(inputs=[X | {"parameters": {"shared_memory_region": "r"}}]), None),
        (body(inputs=[X], outputs=[{"name": "y", "parameters": {"classification": 3}}]), None),
    ],
)
def test_bad_bodies_are_refused_as_invalid(content: bytes, length: int | None) -> None:
    with pytest.raises(ServingError) as caught:
        http_codec.decode(content, length)
    assert caught.value.refusal is Refusal.INVALID
