"""The report on an artifact's formats, read where its bytes lie."""

from __future__ import annotations

import pickle

import pytest
from modelyard import AsyncClient
from modelyard.artifact.v1 import format_service_pb2 as pb
from modelyard.errors import DataLossError

from tests.contract.artifact.conftest import Backend
from tests.contract.artifact.serving import connected, serving
from tests.contract.artifact.yard import MIB, Content, Yard, noise

HEADER = b'{"w":{"dtype":"U8","shape":[3145728],"data_offsets":[0,3145728]}}'
TENSORS = len(HEADER).to_bytes(8, "little") + HEADER + noise(9, 3 * MIB)
TREE = {
    "model.safetensors": Content(TENSORS),
    "state.pkl": Content(pickle.dumps({"a": noise(2, 2 * MIB)})),
    "code/model.py": Content(b"x = 1"),
    "modelyard.json": Content(b"{}"),
}


async def test_a_report(backend: Backend) -> None:
    async with (
        serving(backend.settings) as port,
        connected(port) as stub,
        AsyncClient(f"127.0.0.1:{port}", token="alpha-token", project="alpha") as client,
    ):
        artifact = await Yard(stub).push(TREE)
        report = await client.artifacts.formats(artifact.name)
        assert report.verdict == pb.FORMAT_VERDICT_UNSAFE
        assert [(file.path, file.format) for file in report.files] == [
            ("state.pkl", "pickle"),
            ("code/model.py", "code"),
        ]
        assert (report.allowed_count, report.unverified_count, report.unsafe_count) == (2, 1, 1)
        backend.damage(lambda data: bytes(len(data)))
        # What was found out stays true: the same bytes are not read again.
        assert await client.artifacts.formats(artifact.name) == report
        with pytest.raises(DataLossError):
            await client.artifacts.read(artifact.name, "state.pkl")
