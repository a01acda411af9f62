"""gRPC messages: typed and raw form, both ways, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from modelyard.serving import grpc_codec, tensors
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving.domain import Description, Request, ServingError
from modelyard.serving.tensors import Array

from tests.unit.serving.extremes import EXTREMES, check_same

DESCRIPTION = Description(name="churn", version="7", platform="test")


def as_request(answer: pb.ModelInferResponse) -> pb.ModelInferRequest:
    """Return an answer as a request: outputs and inputs have one form."""
    request = pb.ModelInferRequest(model_name=answer.model_name)
    request.raw_input_contents.extend(answer.raw_output_contents)
    for output in answer.outputs:
        tensor = request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if not answer.raw_output_contents:
            tensor.contents.CopyFrom(output.contents)
    return request


def round_trip(outputs: dict[str, Array], *, raw: bool) -> dict[str, Array]:
    answer = grpc_codec.encode(outputs, DESCRIPTION, Request(inputs={}), raw=raw)
    wire = as_request(answer).SerializeToString()
    request = grpc_codec.decode(pb.ModelInferRequest.FromString(wire))
    return {name: tensor.array for name, tensor in request.inputs.items()}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("datatype", EXTREMES)
def test_round_trip(datatype: str, raw: bool) -> None:
    check_same(round_trip({"t": EXTREMES[datatype]}, raw=raw)["t"], EXTREMES[datatype])


def test_all_datatypes_in_one_message() -> None:
    found = round_trip(EXTREMES, raw=True)
    for datatype, array in EXTREMES.items():
        check_same(found[datatype], array)


def test_bad_messages_are_refused() -> None:
    def request(datatype: str, **contents: list[object]) -> pb.ModelInferRequest:
        message = pb.ModelInferRequest()
        message.inputs.add(name="x", datatype=datatype, shape=[1])
        message.inputs[0].contents.CopyFrom(pb.InferTensorContents(**contents))  # type: ignore[arg-type]  # any field
        return message

    both = request("FP32", fp32_contents=[1])
    both.raw_input_contents.append(tensors.to_raw(np.array([1], dtype=np.float32)))
    too_many = request("FP32")
    too_many.raw_input_contents.extend([b"", b""])
    bad = [
        pb.ModelInferRequest(),
        both,
        too_many,
        request("FP32"),
        request("FP16", fp32_contents=[1]),
        request("FP32", fp64_contents=[1]),
        request("INT8", int_contents=[300]),
        request("FP128", fp64_contents=[1]),
    ]
    for message in bad:
        with pytest.raises(ServingError):
            grpc_codec.decode(message)
