"""Each publish is on the disk, in the right order, before it is acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.flush_order import publish_traced
from tests.faults.installation import OnDisk


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("publishes", [20, 200])
def test_bytes_then_name_then_folder_then_commit_then_answer(
    publishes: int, tmp_path: Path
) -> None:
    with OnDisk(tmp_path).fresh(tmp_path / "traced") as it:
        assert publish_traced(it, tmp_path, publishes) == []
    print(f"{publishes} of {publishes} publishes were flushed in order before their answers")
