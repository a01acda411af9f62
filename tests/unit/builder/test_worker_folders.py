"""Work folders: what a dead worker leaves is removed as soon as nothing of it lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from services.builder.worker.folders import WorkFolders


def test_a_straggler_of_a_dead_worker_is_waited_for(tmp_path: Path) -> None:
    left = tmp_path / "dead" / "build"
    left.mkdir(parents=True)
    straggler = os.open(tmp_path / "dead.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(straggler, fcntl.LOCK_EX)
    folders = WorkFolders(tmp_path, "alive")
    assert left.exists()
    os.close(straggler)
    with folders.build("projects/p/builds/1") as folder:
        assert folder.is_dir()
        assert not left.parent.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["alive", "alive.lock"]
    folders.close()
    assert list(tmp_path.iterdir()) == []
