from __future__ import annotations

import subprocess
import sys

import modelyard
import pytest

PROBE = """
import sys
import modelyard
assert "Client" in dir(modelyard)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("grpc", "google", "numpy")))
"""


def test_importing_loads_neither_grpc_nor_protobuf() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() in ("", "google")  # a namespace package may be known by its .pth


@pytest.mark.parametrize("name", modelyard.__all__)
def test_every_published_name_is_there(name: str) -> None:
    assert getattr(modelyard, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        modelyard.nothing_like_it  # noqa: B018
