"""Trees as large as they get: 100,000 small files, a file of 4 GiB; by hand, they take minutes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from modelyard import Client

from tests.rpc.client.conftest import ArtifactServer, serving
from tests.rpc.client.test_transfer import MIB

FILES = 100_000
TRANSFER = """
import resource, sys, modelyard
server, source, target = sys.argv[1:]
with modelyard.Client(server, token="alpha-token", project="alpha") as client:
    artifact = client.artifacts.push(source)
    client.artifacts.pull(artifact, target)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_hundred_thousand_files(client: Client, tmp_path: Path) -> None:
    for number in range(FILES):
        folder = tmp_path / "in" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 1000:03}.txt").write_text(f"file {number}")
    started = time.monotonic()
    artifact = client.artifacts.push(tmp_path / "in")
    pushed = time.monotonic()
    client.artifacts.pull(artifact, tmp_path / "out")
    pulled = time.monotonic()
    print(f"{FILES} files: {pushed - started:.1f} s up, {pulled - pushed:.1f} s down")
    assert artifact.file_count == FILES
    for number in range(0, FILES, 997):
        place = tmp_path / "out" / f"{number // 1000:03}" / f"{number % 1000:03}.txt"
        assert place.read_text() == f"file {number}"


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_memory_stays_small(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        check_memory(server, tmp_path)


def check_memory(artifact_server: ArtifactServer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    state = hashlib.sha256()
    with (tmp_path / "in/model.bin").open("wb") as file:
        for _ in range(256):
            data = os.urandom(16 * MIB)
            state.update(data)
            file.write(data)
    command = [sys.executable, "-c", TRANSFER, f"127.0.0.1:{artifact_server.port}"]
    done = subprocess.run(
        [*command, str(tmp_path / "in"), str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
    )
    with (tmp_path / "out/model.bin").open("rb") as pulled:
        assert hashlib.file_digest(pulled, "sha256").hexdigest() == state.hexdigest()
    client_mib = int(done.stdout) / 1024
    status = Path(f"/proc/{artifact_server.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    server_mib = int(peak.split()[1]) / 1024
    print(f"4 GiB: client {client_mib:.0f} MiB, service {server_mib:.0f} MiB")
    assert client_mib <= 300
    assert server_mib <= 300
