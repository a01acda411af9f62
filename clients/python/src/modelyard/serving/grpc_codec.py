"""gRPC messages of the protocol from and to requests."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import packed, tensors
from modelyard.serving.domain import Description, Request, Tensor, TensorDescription, invalid
from modelyard.serving.tensors import BF16, FP16, Array, TensorError

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def decode(message: pb.ModelInferRequest) -> Request:
    """Read an infer request; raise ServingError INVALID when it cannot be read."""
    raw = message.raw_input_contents
    if not message.inputs:
        raise invalid("inputs must not be empty")
    if raw and len(raw) != len(message.inputs):
        raise invalid("raw_input_contents must hold every input or none")
    inputs: dict[str, Tensor] = {}
    for index, tensor in enumerate(message.inputs):
        if tensor.name in inputs:
            raise invalid(f"input {tensor.name!r} is given twice")
        for key in ("shared_memory_region", "classification"):
            if key in tensor.parameters:
                raise invalid(f"{key} is not supported")
        array = _array(tensor, raw[index] if raw else None)
        content_type = tensor.parameters.get("content_type")
        is_text = content_type is not None and content_type.string_param == "str"
        inputs[tensor.name] = Tensor(array, is_text=is_text)
    for output in message.outputs:
        for key in ("shared_memory_region", "classification"):
            if key in output.parameters:
                raise invalid(f"{key} is not supported")
    return Request(inputs=inputs, outputs=tuple(o.name for o in message.outputs), id=message.id)


def encode(
    outputs: Mapping[str, Array], description: Description, request: Request, *, raw: bool
) -> pb.ModelInferResponse:
    """Make an answer; raw, or typed where all outputs have a typed form (not FP16, BF16)."""
    datatypes = {name: tensors.datatype_of(array) for name, array in outputs.items()}
    raw = raw or not {FP16, BF16}.isdisjoint(datatypes.values())
    message = pb.ModelInferResponse(
        model_name=description.name, model_version=description.version, id=request.id
    )
    for name, array in outputs.items():
        output = message.outputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        if raw:
            message.raw_output_contents.append(tensors.to_raw(array))
        else:
            _put(output.contents, datatypes[name], array)
    return message


def decode_answer(message: pb.ModelInferResponse) -> dict[str, Tensor]:
    """Read the outputs of an answer."""
    raw = message.raw_output_contents
    return {
        tensor.name: Tensor(_array(tensor, raw[index] if raw else None))
        for index, tensor in enumerate(message.outputs)
    }


def describe(description: Description) -> pb.ModelMetadataResponse:
    """Make the message that describes the model."""
    return pb.ModelMetadataResponse(
        name=description.name,
        versions=[description.version],
        platform=description.platform,
        inputs=[_describe_tensor(tensor) for tensor in description.inputs],
        outputs=[_describe_tensor(tensor) for tensor in description.outputs],
    )


def _describe_tensor(tensor: TensorDescription) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


_AnyTensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferResponse.InferOutputTensor


def _array(tensor: _AnyTensor, raw: bytes | None) -> Array:
    try:
        shape = tensors.check_shape(tensor.shape)
        if raw is None:
            return _typed(tensor, shape)
        if tensor.HasField("contents"):
            raise TensorError("contents and raw_input_contents cannot both be given")
        return tensors.from_raw(tensor.datatype, shape, raw)
    except TensorError as error:
        raise invalid(f"input {tensor.name!r}: {error}") from None


def _typed(tensor: _AnyTensor, shape: tuple[int, ...]) -> Array:
    datatype = tensor.datatype
    tensors.dtype_of(datatype)
    field = _FIELDS.get(datatype)
    if field is None:
        raise TensorError(f"{datatype} must be given in raw_input_contents")
    if any(other.name != field for other, _ in tensor.contents.ListFields()):
        raise TensorError(f"{datatype} must be given in {field}")
    if datatype in packed.DTYPES:
        array = packed.read(tensor.contents, field, packed.DTYPES[datatype])
        return tensors.shaped(array, shape)
    return tensors.from_elements(datatype, shape, getattr(tensor.contents, field))


def _put(contents: pb.InferTensorContents, datatype: str, array: Array) -> None:
    if datatype in packed.DTYPES:
        packed.write(contents, _FIELDS[datatype], array, packed.DTYPES[datatype])
    else:
        getattr(contents, _FIELDS[datatype]).extend(tensors.to_elements(array))
