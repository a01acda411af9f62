"""An array of each datatype, with its extreme values."""

from __future__ import annotations

import numpy as np
from modelyard.serving import tensors
from modelyard.serving.tensors import Array

EXTREMES: dict[str, Array] = {
    "BOOL": np.array([[True, False], [False, True]]),
    **{
        datatype: np.array([[limits.min, limits.max], [0, 1]], dtype=limits.dtype)
        for datatype, dtype in tensors.DTYPES.items()
        if dtype.kind in "iu"
        for limits in [np.iinfo(dtype)]
    },
    "FP16": np.array([[0.5, -2], [65504, 1e-3]], dtype=np.float16),
    "FP32": np.array([[0.1, -2], [3.4e38, 1e-30]], dtype=np.float32),
    "FP64": np.array([[0.1, -2], [1.7e308, 5e-324]]),
    "BYTES": np.array([[b"a", b""], ["ü".encode(), b"\n\0"]], dtype=object),
}


def check_same(found: Array, wanted: Array) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tolist() == wanted.tolist()
    assert found.flags.writeable
