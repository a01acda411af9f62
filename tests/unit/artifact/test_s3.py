from __future__ import annotations

import socket
from pathlib import Path

import pytest

from services.artifact.blobs.s3 import S3Blobs
from services.common.errors import Reason, ServiceError


def test_an_absent_server_is_told_as_unavailable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    blobs = S3Blobs(
        endpoint=f"127.0.0.1:{port}",
        bucket="modelyard",
        access_key="k",
        secret_key="s",
        secure=False,
    )
    source = tmp_path / "pack"
    source.write_bytes(b"bytes")
    for call in (lambda: blobs.put("a", source), lambda: blobs.read("a", 0, 1)):
        with pytest.raises(ServiceError) as caught:
            call()
        assert caught.value.reason is Reason.SERVICE_UNAVAILABLE
        assert str(port) not in caught.value.message
    assert source.exists()
