"""Elements of packed fields come and go whole, however they were sent."""

from __future__ import annotations

import numpy as np
import pytest
from modelyard.serving import open_inference_service_pb2 as pb
from modelyard.serving import packed

FIELDS = {"BOOL": "bool_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"}
ARRAYS = {
    "BOOL": np.array([True, False, True]),
    "FP32": np.array([0.1, -0.0, np.nan, np.inf, 3.4e38], dtype="<f4"),
    "FP64": np.arange(1000, dtype="<f8") / 7,
}


@pytest.mark.parametrize("datatype", packed.DTYPES)
def test_what_is_put_is_what_protobuf_reads_and_what_is_taken(datatype: str) -> None:
    array, field, dtype = ARRAYS[datatype], FIELDS[datatype], packed.DTYPES[datatype]
    contents = pb.InferTensorContents()
    packed.write(contents, field, array, dtype)
    assert np.array_equal(list(getattr(contents, field)), array, equal_nan=datatype != "BOOL")
    read = packed.read(contents, field, dtype)
    assert read.tobytes() == array.tobytes()
    read[:1] = 0  # a model may write to what it is given


@pytest.mark.parametrize("datatype", packed.DTYPES)
def test_nothing_is_nothing(datatype: str) -> None:
    contents = pb.InferTensorContents()
    packed.write(contents, FIELDS[datatype], np.empty((0, 3)), packed.DTYPES[datatype])
    assert contents == pb.InferTensorContents()
    assert packed.read(contents, FIELDS[datatype], packed.DTYPES[datatype]).size == 0


def test_elements_sent_one_by_one_and_beside_unknown_fields_are_read() -> None:
    single = b"\x35" + np.float32(1.5).tobytes()  # field 6 with one element, unpacked
    two = b"\x32\x08" + np.array([2.5, 3.5], dtype="<f4").tobytes()  # field 6, packed
    number = pb.InferTensorContents.FP32_CONTENTS_FIELD_NUMBER
    assert (single[0] >> 3, two[0] >> 3) == (number, number)
    unknown = b"\xf8\x07\x2a"  # field 127, a varint
    contents = pb.InferTensorContents.FromString(unknown + single + two)
    read = packed.read(contents, "fp32_contents", packed.DTYPES["FP32"])
    assert read.tolist() == [1.5, 2.5, 3.5]


def test_a_tensor_of_rows_and_columns_is_put_row_by_row() -> None:
    contents = pb.InferTensorContents()
    array = np.arange(6, dtype=">f8").reshape(2, 3).T
    packed.write(contents, "fp64_contents", array, packed.DTYPES["FP64"])
    assert list(contents.fp64_contents) == array.reshape(-1).tolist()
