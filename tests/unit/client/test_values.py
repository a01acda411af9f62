from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from modelyard._values import decode_value, encode_time, encode_value
from modelyard.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "value", [0, -1, 2**63 - 1, 1.5, math.inf, True, False, "x", [1, [2.0, "y"]]]
)
def test_parameters_keep_their_types(value: object) -> None:
    decoded = decode_value(encode_value(value))
    assert decoded == value
    assert type(decoded) is type(value)


def test_numpy_scalars_are_pythons() -> None:
    assert decode_value(encode_value(np.int64(3))) == 3
    assert decode_value(encode_value(np.float32(0.5))) == 0.5
    assert decode_value(encode_value(np.bool_(True))) is True


@pytest.mark.parametrize("value", [None, {}, 2**63, object(), b"x", [None]])
def test_what_is_no_parameter(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="depth"):
        encode_value(value, key="depth")


def test_a_time_needs_its_zone() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    stamp = encode_time(moment)
    assert stamp is not None
    assert stamp.ToDatetime(UTC) == moment
    with pytest.raises(InvalidArgumentError):
        encode_time(datetime(2026, 1, 1))  # noqa: DTZ001  # that is the point
