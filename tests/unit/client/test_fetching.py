"""What is asked about files before they are fetched."""

from __future__ import annotations

import hashlib

import pytest
from modelyard import ResourceExhaustedError
from modelyard._transfers import direct as _direct
from modelyard._transfers import fetching as _fetching
from modelyard._transport.calls import Call, Pause
from modelyard.artifact.v1 import artifact_pb2
from modelyard.artifact.v1 import transfer_service_pb2 as service


def test_no_more_files_are_asked_about_at_once_than_the_service_tells_of() -> None:
    files = [
        artifact_pb2.File(
            path=f"{n}", size_bytes=4096, sha256=hashlib.sha256(b"%d" % n).hexdigest()
        )
        for n in range(2 * _direct.FILES_PER_GRANT + 500)
    ]
    flow = _fetching._copy_together("projects/alpha/artifacts/0", files, lambda _: None)
    asked: list[bytes] = []
    command = next(flow, None)
    while command is not None:
        assert isinstance(command, Call)
        assert isinstance(command.request, service.GrantReadsRequest)
        assert len(command.request.file_digests) <= _direct.FILES_PER_GRANT
        asked += command.request.file_digests
        try:
            command = flow.send(service.GrantReadsResponse())
        except StopIteration:
            command = None
    assert asked == [bytes.fromhex(file.sha256) for file in files]


def test_where_files_lie_is_asked_again_when_the_service_is_busy() -> None:
    flow = _direct._ask("projects/alpha/artifacts/0", [bytes(32)])
    wanted = next(flow)
    busy = ResourceExhaustedError("too much to do", retry_delay=7.5)
    assert flow.throw(busy) == Pause(7.5)
    assert flow.send(None) == wanted
    answer = service.GrantReadsResponse(files=[service.FileChunks()])
    with pytest.raises(StopIteration) as end:
        flow.send(answer)
    assert end.value.value == answer


def test_more_chunks_than_one_answer_tells_of_go_through_the_service() -> None:
    flow = _direct._ask("projects/alpha/artifacts/0", [bytes(32)])
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.throw(ResourceExhaustedError("too many chunks"))
    assert end.value.value is None
