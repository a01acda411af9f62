"""The direct path: the public client against S3, beside bare requests to the same S3 server.

The bare side is the fastest there can be on this machine: signed requests, four at a time, that
hash nothing and verify nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import modelyard
import urllib3

from benchmarks.artifact import content
from benchmarks.metadata import ours
from benchmarks.metadata.ours import OurServer
from benchmarks.runner import Measurement, Scale, seconds
from tests.servers import seaweedfs
from tests.servers.seaweedfs import S3Bucket

AT_ONCE = 4
PART_BYTES = 16 * 1024 * 1024
LIFETIME = dt.timedelta(minutes=15)


def measure(scale: Scale, folder: Path) -> Iterator[Measurement]:
    """Measure the bars of the direct path."""
    size = (256 if scale.quick else 1024) * content.MIB
    with ExitStack() as stack:
        (folder / "s3").mkdir()
        bucket = stack.enter_context(seaweedfs.running(folder / "s3")).fresh_bucket()
        os.environ |= {
            "MODELYARD_ARTIFACT_S3_ENDPOINT": f"http://{bucket.endpoint}",
            "MODELYARD_ARTIFACT_S3_BUCKET": bucket.bucket,
            "MODELYARD_ARTIFACT_S3_ACCESS_KEY": bucket.access_key,
            "MODELYARD_ARTIFACT_S3_SECRET_KEY": bucket.secret_key,
        }
        server = stack.enter_context(ours.running(folder / "direct", runs=1))
        client = stack.enter_context(server.client())
        rounds = [
            _round(client, server, bucket, folder, size)
            for _ in range(scale.repetitions + 1)  # the first one is not counted
        ][1:]
    up, bare_up, down, bare_down, shares = (list(some) for some in zip(*rounds, strict=True))
    yield Measurement("direct path up", _of(bare_up, up), up, bare_up)
    yield Measurement("direct path down", _of(bare_down, down), down, bare_down)
    share = statistics.median(shares)
    yield Measurement("direct path, service CPU", share, shares, [])


def _of(bare: list[float], ours: list[float]) -> float:
    return statistics.median(bare) / statistics.median(ours)


def _round(
    client: modelyard.Client,
    server: OurServer,
    bucket: S3Bucket,
    folder: Path,
    size: int,
) -> tuple[float, float, float, float, float]:
    """Send and fetch a file both ways; return the seconds, and the service's share of a core."""
    content.large(folder / "tree", size)
    before, started = server.cpu_seconds(), time.perf_counter()
    artifact = client.artifacts.push(folder / "tree")
    up = time.perf_counter() - started
    started = time.perf_counter()
    client.artifacts.pull(artifact.name, folder / "out", cache="")
    down = time.perf_counter() - started
    share = (server.cpu_seconds() - before) / (up + down) * 100
    shutil.rmtree(folder / "out")
    parts = range(0, size, PART_BYTES)
    bare_up = seconds(lambda: list(_POOL.map(lambda at: _put(bucket, folder, at), parts)))
    bare_down = seconds(lambda: list(_POOL.map(lambda at: _get(bucket, folder, at), parts)))
    return up, bare_up, down, bare_down, share


_POOL = ThreadPoolExecutor(AT_ONCE)
_HTTP = urllib3.PoolManager(maxsize=AT_ONCE)


def _put(bucket: S3Bucket, folder: Path, offset: int) -> None:
    with (folder / "tree" / "model.bin").open("rb") as file:
        data = os.pread(file.fileno(), PART_BYTES, offset)
    url = _url(bucket, "PUT", offset)
    assert _HTTP.request("PUT", url, body=data).status == 200


def _get(bucket: S3Bucket, folder: Path, offset: int) -> None:
    answer = _HTTP.request("GET", _url(bucket, "GET", offset))
    assert len(answer.data) == PART_BYTES
    descriptor = os.open(folder / "bare.bin", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, answer.data, offset)
    finally:
        os.close(descriptor)


def _url(bucket: S3Bucket, method: str, offset: int) -> str:
    return bucket.client().get_presigned_url(
        method, bucket.bucket, f"bare/{offset}", expires=LIFETIME
    )
