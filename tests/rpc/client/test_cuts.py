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

from tests.rpc.client.conftest import CuttingProxy, serving
from tests.rpc.client.test_transfer import MIB
from tests.servers.processes import free_port

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


def pull_all(count: int, folder: Path, *, size: int) -> tuple[int, float]:
    """Fetch a file so often over HTTP that breaks; return how often it did, and the worst cost."""
    port, worst, cuts = free_port(), 0.0, 0
    proxy = CuttingProxy(port, [])
    data = random.Random(count).randbytes(size)  # noqa: S311
    (folder / "model.bin").write_bytes(data)
    listen, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{proxy.port}"
    with (
        serving(folder / "artifact", HTTP_LISTEN=listen, HTTP_URL=url) as server,
        Client(f"127.0.0.1:{server.port}", token="alpha-token", project="alpha") as client,
    ):
        artifact = client.artifacts.push(folder / "model.bin")
        for number in range(count):
            source = random.Random(number)  # noqa: S311 - reproducible, not secret
            budgets = [source.randrange(MIB, size // 2) for _ in range(source.randint(1, 5))]
            proxy.break_all(budgets)
            before, cut_before = proxy.passed, proxy.cuts
            pulled = client.artifacts.pull(artifact, folder / "out")
            assert (pulled / "model.bin").read_bytes() == data
            shutil.rmtree(pulled)
            worst = max(worst, (proxy.passed - before - size) / max(proxy.cuts - cut_before, 1))
        cuts = proxy.cuts
    proxy.close()
    return cuts, worst


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


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("count", [12, 200])
def test_many_pulls_over_http_that_are_cut_end_well(count: int, tmp_path: Path) -> None:
    cuts, worst = pull_all(count, tmp_path, size=LONG_BYTES)
    print(f"cut {cuts} times; received again per cut, at worst: {worst / MIB:.1f} MiB")
    assert cuts >= count
    assert worst <= LOST_PER_CUT
