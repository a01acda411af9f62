"""Samples of requests: which tensors become columns, and how much is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelyard.serving import grpc_codec, http_codec
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import Description, Request
from modelyard.serving.http_codec import WantedForm
from modelyard.serving.jobs import Job, Protocol, Result
from modelyard.serving.sampling import MAX_ROWS, Sampler, SamplingPlan, sample_of
from modelyard.serving.tensors import Array

MODEL = Description("m", "1", "p")
REQUEST = Request(inputs={})


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def asked(*inputs: dict[str, Any]) -> Job:
    return Job(Protocol.HTTP, json.dumps({"inputs": inputs}).encode())


def answered(outputs: dict[str, Array], *, raw: bool = False) -> Result:
    return Result(*http_codec.encode(outputs, MODEL, REQUEST, WantedForm(raw, {})))


@pytest.mark.parametrize("raw", [False, True])
def test_the_columns_of_a_matrix_are_called_as_those_of_an_array(raw: bool) -> None:
    job = asked(tensor("x", "FP64", [2, 3], [1, 2, 3, 4, 5, 6]))
    sample = sample_of(job, answered({"label": np.array([0, 1])}, raw=raw))
    assert sample["rows"] == 2
    assert sample["columns"] == {"0": [1, 4], "1": [2, 5], "2": [3, 6], "output.label": [0, 1]}
    assert sample["types"]["0"] == "float64"
    assert sample["types"]["output.label"] == "int64"


def test_what_is_no_column_is_left_out() -> None:
    job = asked(
        tensor("age", "INT32", [2], [30, 40]),
        {**tensor("plan", "BYTES", [2], ["basic", "pro"]), "parameters": {"content_type": "str"}},
        tensor("active", "BOOL", [2, 1], [True, False]),
        tensor("image", "UINT8", [2, 2, 2], [0] * 8),
        tensor("one", "FP32", [1], [1.0]),
    )
    outputs = {"score": np.array([1, np.nan]), "pair": np.ones((2, 2)), "cube": np.ones((2, 2, 2))}
    sample = sample_of(job, answered(outputs, raw=True))
    assert sample["columns"].keys() == {
        *("age", "plan", "active.0", "output.score", "output.pair.0", "output.pair.1")
    }
    assert sample["types"]["plan"] == "str"
    assert sample["columns"]["active.0"] == [True, False]


def test_grpc_requests_are_read_too() -> None:
    request = pb.ModelInferRequest(model_name="m")
    asked_for = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    asked_for.contents.fp32_contents.extend([1, 2])
    for raw in (False, True):
        answer = grpc_codec.encode({"y": np.array([7.0])}, MODEL, REQUEST, raw=raw)
        job = Job(Protocol.GRPC, request.SerializeToString())
        sample = sample_of(job, Result(answer.SerializeToString()))
        assert sample["columns"] == {"0": [1], "1": [2], "output.y": [7]}


def test_a_request_without_columns_is_no_sample() -> None:
    job = asked(tensor("image", "UINT8", [1, 1, 1], [0]))
    assert sample_of(job, answered({"cube": np.ones((1, 1, 1))})) == {}


def written(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.json"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def test_a_sampler_writes_what_it_took(tmp_path: Path) -> None:
    dropped: list[None] = []
    plan = SamplingPlan(tmp_path, 1.0, 1e9)
    sampler = Sampler(plan, on_dropped=lambda: dropped.append(None))
    job = asked(tensor("x", "FP64", [MAX_ROWS + 5], [1.0] * (MAX_ROWS + 5)))
    result = answered({"y": np.ones(MAX_ROWS + 5)})
    sampler.offer(job, result)
    sampler.offer(Job(Protocol.HTTP, b"no request"), result)
    sampler.offer(Job(Protocol.HTTP, b"x" * 2_000_000), result)
    sampler.close()
    assert [line["rows"] for line in written(tmp_path)] == [MAX_ROWS]
    assert len(dropped) == 2


def test_rows_a_second_and_the_share_bound_what_is_taken(tmp_path: Path) -> None:
    job, result = asked(tensor("x", "FP64", [1], [1.0])), answered({"y": np.ones(1)})
    slow = Sampler(SamplingPlan(tmp_path / "slow", 1.0, 0.01), on_dropped=lambda: None)
    none = Sampler(SamplingPlan(tmp_path / "none", 1e-12, 1e9), on_dropped=lambda: None)
    for _ in range(10_000):
        slow.offer(job, result)
        none.offer(job, result)
    slow.close()
    none.close()
    assert 1 <= len(written(tmp_path / "slow")) <= 66  # what waited when the first was counted
    assert written(tmp_path / "none") == []
