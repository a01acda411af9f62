"""Each publish is kept for good, in the right order, before it is acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import commit_order, flush_order
from tests.faults.commit_order import committed_out_of_order
from tests.faults.flush_order import flushed_out_of_order, publish_traced
from tests.faults.installation import OnDisk, OnServers
from tests.servers.postgres import PostgresServer
from tests.servers.seaweedfs import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("publishes", [20, 200])
def test_bytes_then_name_then_folder_then_commit_then_answer(
    publishes: int, tmp_path: Path
) -> None:
    with OnDisk(tmp_path).fresh(tmp_path / "traced") as it:
        calls = publish_traced(it, tmp_path, publishes, flush_order.CALLS)
        assert flushed_out_of_order(calls, it, publishes) == []
    print(f"{publishes} of {publishes} publishes were flushed in order before their answers")


def test_object_then_chunks_then_version_then_answer(
    tmp_path: Path, postgres_server: PostgresServer, s3_server: S3Server
) -> None:
    publishes = 200
    with OnServers(tmp_path, postgres_server, s3_server).fresh(tmp_path / "traced") as it:
        calls = publish_traced(it, tmp_path, publishes, commit_order.CALLS)
        assert committed_out_of_order(calls, it, publishes) == []
    print(f"{publishes} of {publishes} publishes were committed in order before their answers")
