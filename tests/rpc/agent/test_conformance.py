"""The Open Inference Protocol v2, field by field and type by type, against a real model server.

The model answers each input as an output of the same name. There are two worker processes, so
that everything takes the longer way.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import open_inference_service_pb2_grpc as pb_grpc
from modelyard.serving import tensors

from tests.rpc.agent.bundles import make_bundle
from tests.unit.serving.extremes import EXTREMES

INFER = "/v2/models/mirror/infer"
LENGTH = "inference-header-content-length"
BFLOATS = [1.5, -2.0, 3.0, 1.0078125]
BFLOATS_RAW = bytes.fromhex("c03f00c04040813f")
FIELDS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    folder = tmp_path_factory.mktemp("conformance")
    bundle = make_bundle(folder / "bundle", entry="Mirror")
    arguments = ["-m", "modelyard.serving", "--bundle", str(bundle), "--workers", "2"]
    arguments += ["--name", "mirror", "--version", "4", "--ports-file", str(folder / "ports")]
    with subprocess.Popen([sys.executable, *arguments]) as process:
        deadline = time.monotonic() + 60
        while not (folder / "ports").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield json.loads((folder / "ports").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def http(ports: dict[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{ports['http_port']}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def channel(ports: dict[str, int]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc_port']}") as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> pb_grpc.GRPCInferenceServiceStub:
    return pb_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.parametrize("datatype", EXTREMES)
def test_http_json_tensors(http: httpx.Client, datatype: str) -> None:
    array = EXTREMES[datatype]
    data = tensors.to_values(array)
    tensor = {"name": "x", "datatype": datatype, "shape": [2, 2], "data": data}
    nested = tensor | {"data": [data[:2], data[2:]]}
    for given in (tensor, nested):
        answer = http.post(INFER, json={"inputs": [given], "outputs": [{"name": "x"}]}).json()
        (output,) = answer["outputs"]
        read = tensors.from_values(datatype, (2, 2), output.pop("data"))
        assert read.tolist() == array.tolist()
        assert output == {"name": "x", "datatype": datatype, "shape": [2, 2]}


@pytest.mark.parametrize("datatype", EXTREMES)
def test_http_raw_tensors(http: httpx.Client, datatype: str) -> None:
    raw = tensors.to_raw(EXTREMES[datatype])
    size = {"binary_data_size": len(raw)}
    tensor = {"name": "x", "datatype": datatype, "shape": [2, 2], "parameters": size}
    wanted = [{"name": "x", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    answer = http.post(INFER, content=head + raw, headers={LENGTH: str(len(head))})
    end = int(answer.headers[LENGTH])
    assert json.loads(answer.content[:end])["outputs"] == [tensor]
    assert answer.content[end:] == raw


@pytest.mark.parametrize("datatype", EXTREMES)
def test_grpc_tensors(stub: pb_grpc.GRPCInferenceServiceStub, datatype: str) -> None:
    array = EXTREMES[datatype]
    request = pb.ModelInferRequest(model_name="mirror")
    tensor = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
    request.outputs.add(name="x")
    if field := FIELDS.get(datatype):
        getattr(tensor.contents, field).extend(tensors.to_elements(array))
        answer = stub.ModelInfer(request)
        elements = getattr(answer.outputs[0].contents, field)
        assert tensors.from_elements(datatype, (2, 2), elements).tolist() == array.tolist()
        assert not answer.raw_output_contents
        tensor.ClearField("contents")
    request.raw_input_contents.append(tensors.to_raw(array))
    answer = stub.ModelInfer(request)
    assert list(answer.raw_output_contents) == [tensors.to_raw(array)]
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("x", datatype, [2, 2])
    assert not output.HasField("contents")


def test_bfloat16(http: httpx.Client, stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    tensor = {"name": "bf16", "datatype": "BF16", "shape": [4], "data": [*BFLOATS[:3], 1.0079]}
    (output,) = http.post(INFER, json={"inputs": [TENSOR, tensor]}).json()["outputs"]
    assert (output["datatype"], output["data"]) == ("BF16", BFLOATS)
    request = pb.ModelInferRequest(model_name="mirror", raw_input_contents=[RAW, BFLOATS_RAW])
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.inputs.add(name="bf16", datatype="BF16", shape=[4])
    answer = stub.ModelInfer(request)
    assert (answer.outputs[0].datatype, answer.raw_output_contents[0]) == ("BF16", BFLOATS_RAW)


def test_fields_of_http(http: httpx.Client) -> None:
    about = http.get("/v2").json()
    assert (about["name"], about["extensions"]) == ("modelyard", ["binary_tensor_data"])
    assert about["version"]
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/mirror", "/v2/models/mirror/versions/4"):
        assert http.get(f"{path}/ready").json() == {"ready": True}
        described = http.get(path).json()
        assert (described["name"], described["versions"]) == ("mirror", ["4"])
        assert described["platform"] == "modelyard_model-class"
        assert described["inputs"] == [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}]
        assert [output["name"] for output in described["outputs"]] == ["x", "pid"]
    sent = {"id": "a-1", "inputs": [TENSOR], "parameters": {"p": 1, "q": "s", "r": True}}
    answer = http.post("/v2/models/mirror/versions/4/infer", json=sent)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["modelyard-version"] == "4"
    document = answer.json()
    assert [output["name"] for output in document.pop("outputs")] == ["x", "pid"]
    assert document == {"model_name": "mirror", "model_version": "4", "id": "a-1"}
    assert "id" not in http.post(INFER, json={"inputs": [TENSOR]}).json()


def test_fields_of_grpc(stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    about = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (about.name, list(about.extensions)) == ("modelyard", ["binary_tensor_data"])
    assert about.version
    for version in ("", "4"):
        assert stub.ModelReady(pb.ModelReadyRequest(name="mirror", version=version)).ready
        asked = pb.ModelMetadataRequest(name="mirror", version=version)
        described = stub.ModelMetadata(asked)
        assert (described.name, list(described.versions)) == ("mirror", ["4"])
        assert described.platform == "modelyard_model-class"
        assert list(described.inputs[0].shape) == [-1, 2]
        assert [output.name for output in described.outputs] == ["x", "pid"]
        request = pb.ModelInferRequest(model_name="mirror", model_version=version, id="a-1")
        request.parameters["p"].int64_param = 1
        request.inputs.add(name="x", datatype="BOOL", shape=[1]).contents.bool_contents.append(True)
        answer = stub.ModelInfer(request)
        assert (answer.model_name, answer.model_version, answer.id) == ("mirror", "4", "a-1")
        assert [output.name for output in answer.outputs] == ["x", "pid"]


@pytest.mark.parametrize(
    "tensor",
    [
        TENSOR | {"shape": [3]},
        TENSOR | {"shape": [-1, 2]},
        TENSOR | {"shape": [1.0, 2]},
        TENSOR | {"shape": "2"},
        TENSOR | {"shape": [1] * 33},
        TENSOR | {"shape": [2**62, 2**62]},
        TENSOR | {"shape": [0, 2**62, 2**62], "data": []},
        {key: value for key, value in TENSOR.items() if key != "shape"},
        {key: value for key, value in TENSOR.items() if key != "data"},
        {key: value for key, value in TENSOR.items() if key != "name"},
        {key: value for key, value in TENSOR.items() if key != "datatype"},
        TENSOR | {"datatype": "FP128"},
        TENSOR | {"datatype": 7},
        TENSOR | {"data": [1]},
        TENSOR | {"data": [1, "2"]},
        TENSOR | {"data": [1, None]},
        TENSOR | {"data": [[1], [2, 3]]},
        TENSOR | {"data": [1, 1e39]},
        TENSOR | {"data": {"0": 1}},
        TENSOR | {"datatype": "INT8", "data": [1, 128]},
        TENSOR | {"datatype": "UINT64", "data": [1, 2**64]},
        TENSOR | {"datatype": "INT32", "data": [1, 1.5]},
        TENSOR | {"datatype": "BOOL", "data": [1, 0]},
        TENSOR | {"datatype": "BYTES", "data": [1, 0]},
        TENSOR | {"name": "y"},
        TENSOR | {"parameters": {"shared_memory_region": "r"}},
        TENSOR | {"parameters": {"binary_data_size": 8}},
    ],
    ids=str,
)
def test_malformed_http_tensors(http: httpx.Client, tensor: dict[str, Any]) -> None:
    answer = http.post(INFER, json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        '{"inputs": []}',
        '{"inputs": {}}',
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [-Infinity]}]}',
        json.dumps({"inputs": [TENSOR, TENSOR]}),
        json.dumps({"inputs": [TENSOR], "outputs": [{"name": "none"}]}),
        json.dumps({"inputs": [TENSOR], "parameters": []}),
        json.dumps({"inputs": [TENSOR], "id": 7}),
    ],
)
def test_malformed_http_requests(http: httpx.Client, body: str) -> None:
    answer = http.post(INFER, content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def grpc_tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2]} | changes


FLOATS = {"fp32_contents": [1, 2]}
RAW = np.array([1, 2], np.float32).tobytes()


@pytest.mark.parametrize(
    ("inputs", "raw"),
    [
        ([], []),
        ([grpc_tensor()], []),
        ([grpc_tensor(contents=FLOATS, datatype="FP128")], []),
        ([grpc_tensor(contents=FLOATS, shape=[3])], []),
        ([grpc_tensor(contents=FLOATS, shape=[-2])], []),
        ([grpc_tensor(contents=FLOATS, shape=[2**62, 2**62])], []),
        ([grpc_tensor(contents=FLOATS, datatype="FP64")], []),
        ([grpc_tensor(contents={"int_contents": [1, 128]}, datatype="INT8")], []),
        ([grpc_tensor(contents=FLOATS, datatype="FP16")], []),
        ([grpc_tensor(contents=FLOATS, name="y")], []),
        ([grpc_tensor(contents=FLOATS), grpc_tensor(contents=FLOATS)], []),
        ([grpc_tensor(contents=FLOATS)], [RAW]),
        ([grpc_tensor()], [RAW, RAW]),
        ([grpc_tensor()], [RAW[1:]]),
        ([grpc_tensor(shape=[0, 2**62, 2**62])], [b""]),
        ([grpc_tensor(datatype="BYTES")], [b"\x01\x00\x00\x00"]),
    ],
    ids=str,
)
def test_malformed_grpc_requests(
    stub: pb_grpc.GRPCInferenceServiceStub, inputs: list[dict[str, Any]], raw: list[bytes]
) -> None:
    request = pb.ModelInferRequest(model_name="mirror", raw_input_contents=raw)
    for tensor in inputs:
        request.inputs.add(**tensor)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_bytes_that_are_no_message(channel: grpc.Channel) -> None:
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer"
    )
    with pytest.raises(grpc.RpcError) as caught:
        infer(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_is_not_served(http: httpx.Client, stub: pb_grpc.GRPCInferenceServiceStub) -> None:
    for path in ("/v2/models/other", "/v2/models/mirror/versions/9/ready", "/v2/x"):
        assert http.get(path).status_code == 404
    assert http.get(INFER).status_code == 405
    calls: list[tuple[Any, Any]] = [
        (stub.ModelInfer, pb.ModelInferRequest(model_name="other")),
        (stub.ModelReady, pb.ModelReadyRequest(name="mirror", version="9")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="other")),
    ]
    for method, request in calls:
        with pytest.raises(grpc.RpcError) as caught:
            method(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
