"""Transfers whose connections break at random: all end with the right bytes, at a bounded cost.

What a break costs: of each of the streams under way (three up, three down) at most what
was not acknowledged. Up, the server keeps what arrived whole, so that is what was in the
buffers of both systems; down, what a piece of 1 MiB lacked.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from modelyard import Client

from tests.rpc.client.conftest import CuttingProxy
from tests.rpc.client.test_transfer import MIB

SHORT_BYTES = 16 * MIB
LONG_BYTES = 64 * MIB
LOST_PER_CUT = 24 * MIB
"""Three streams, and of each what lies in buffers of gRPC, the proxy and both kernels."""


def transfer_all(port: int, count: int, folder: Path, *, size: int) -> tuple[float, float]:
    """Send and fetch so many files over connections that break; return the worst cost of a cut."""
    worst_up = worst_down = 0.0
    for number in range(count):
        source = random.Random(number + 5000)  # noqa: S311 - reproducible, not secret
        tree = folder / "in"
        tree.mkdir()
        data = source.randbytes(size)
        (tree / "model.bin").write_bytes(data)
        cuts = [source.randrange(MIB, size // 2) for _ in range(source.randint(1, 5))]
        proxy = CuttingProxy(port, list(cuts))
        with Client(f"127.0.0.1:{proxy.port}", token="alpha-token", project="alpha") as client:
            artifact = client.artifacts.push(tree)
            assert artifact.size_bytes == size
        worst_up = max(worst_up, (proxy.passed - size) / max(proxy.cuts, 1))
        proxy.close()
        proxy = CuttingProxy(port, list(cuts))
        with Client(f"127.0.0.1:{proxy.port}", token="alpha-token", project="alpha") as client:
            pulled = client.artifacts.pull(artifact, folder / "out")
            assert (pulled / "model.bin").read_bytes() == data
        worst_down = max(worst_down, (proxy.passed - size) / max(proxy.cuts, 1))
        proxy.close()
        shutil.rmtree(tree)
        shutil.rmtree(pulled)
    return worst_up, worst_down


def test_two_cut_transfers_end_well(artifact_port: int, tmp_path: Path) -> None:
    worst_up, worst_down = transfer_all(artifact_port, 2, tmp_path, size=SHORT_BYTES)
    assert worst_up <= LOST_PER_CUT
    assert worst_down <= LOST_PER_CUT


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("count", [12, 200])
def test_many_cut_transfers_end_well(count: int, artifact_port: int, tmp_path: Path) -> None:
    worst_up, worst_down = transfer_all(artifact_port, count, tmp_path, size=LONG_BYTES)
    print(
        f"re-sent per cut, at worst: {worst_up / MIB:.1f} MiB up, {worst_down / MIB:.1f} MiB down"
    )
    assert worst_up <= LOST_PER_CUT
    assert worst_down <= LOST_PER_CUT
