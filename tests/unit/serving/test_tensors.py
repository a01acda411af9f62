"""Tensors survive JSON, typed and raw form; what does not fit its datatype is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modelyard.serving import tensors
from modelyard.serving.tensors import TensorError

from tests.unit.serving.extremes import EXTREMES, check_same


def test_every_datatype_is_covered() -> None:
    assert set(EXTREMES) | {tensors.BF16} == set(tensors.DTYPES)
    assert all(tensors.datatype_of(array) == name for name, array in EXTREMES.items())


@pytest.mark.parametrize("datatype", EXTREMES)
def test_raw_round_trip(datatype: str) -> None:
    array = EXTREMES[datatype]
    check_same(tensors.from_raw(datatype, array.shape, tensors.to_raw(array)), array)


@pytest.mark.parametrize("datatype", EXTREMES)
def test_json_round_trip_flat_and_nested(datatype: str) -> None:
    array = EXTREMES[datatype]
    flat = tensors.to_values(array)
    check_same(tensors.from_values(datatype, array.shape, flat), array)
    check_same(tensors.from_values(datatype, array.shape, [flat[:2], flat[2:]]), array)


@pytest.mark.parametrize("datatype", [name for name in EXTREMES if name != "FP16"])
def test_typed_round_trip(datatype: str) -> None:
    array = EXTREMES[datatype]
    check_same(tensors.from_elements(datatype, array.shape, tensors.to_elements(array)), array)


@pytest.mark.parametrize("datatype", EXTREMES)
def test_empty_tensors(datatype: str) -> None:
    array = np.empty((0, 3), dtype=tensors.DTYPES[datatype])
    check_same(tensors.from_values(datatype, (0, 3), []), array)
    check_same(tensors.from_raw(datatype, (0, 3), b""), array)


def test_big_endian_and_strided_arrays_are_written_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    raw = tensors.to_raw(array)
    assert tensors.from_raw("INT32", (3, 2), raw).tolist() == array.tolist()


def test_what_json_cannot_say_is_null() -> None:
    assert tensors.to_values(np.array([1.0, np.nan, np.inf])) == [1.0, None, None]


@pytest.mark.parametrize(
    ("datatype", "shape", "values"),
    [
        ("INT8", (1,), [128]),
        ("UINT8", (1,), [-1]),
        ("UINT64", (1,), [2**64]),
        ("INT64", (1,), [2**63]),
        ("INT32", (1,), [1.5]),
        ("INT32", (1,), ["1"]),
        ("INT32", (1,), [True]),
        ("INT32", (2,), [1]),
        ("FP32", (1,), [None]),
        ("FP32", (1,), ["nan"]),
        ("FP64", (2,), [[1], [2, 3]]),
        ("FP64", (1,), 1),
        ("BOOL", (1,), [1]),
        ("BYTES", (1,), [1]),
        ("BYTES", (1,), ["\ud800"]),
        ("BYTES", (1,), "a"),
        ("FP8", (1,), [1]),
    ],
)
def test_values_that_do_not_fit_are_refused(
    datatype: str, shape: tuple[int, ...], values: Any
) -> None:
    with pytest.raises(TensorError):
        tensors.from_values(datatype, shape, values)


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", b"abc"), ("BYTES", b"\1"), ("BYTES", b"\5\0\0\0ab"), ("BYTES", b""), ("BOOL", b"ab")],
)
def test_raw_bytes_that_do_not_fit_are_refused(datatype: str, raw: bytes) -> None:
    with pytest.raises(TensorError):
        tensors.from_raw(datatype, (1,), raw)


@pytest.mark.parametrize("shape", [None, 3, "3", [-1], [1.0], [True], [1] * 33])
def test_shapes_that_are_none_are_refused(shape: Any) -> None:
    with pytest.raises(TensorError):
        tensors.check_shape(shape)


def test_bfloat16_is_rounded_to_the_nearest() -> None:
    halves = [1.00390625, 1.01171875]  # in the middle of two: the even one
    array = tensors.from_values("BF16", (4,), [*halves, 1.0040, -1.0])
    assert array.tolist() == [1.0, 1.015625, 1.0078125, -1.0]
    assert tensors.from_values("BF16", (0,), []).size == 0
