"""Packs in an S3 bucket: each made durable by one put that the server verifies."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from services.artifact.blobs import BlobMissingError, disk_errors, unavailable
from services.artifact.blobs.signing import S3Signer
from services.artifact.domain import PACK_BYTES

_log = logging.getLogger(__name__)

_MISSING = frozenset({"NoSuchKey", "NotFound", "InvalidRange"})
_TIMEOUT_SECONDS = 60
_CONNECTIONS = 32
_FOLDER = "packs"


class S3Blobs:
    """Keep blobs as objects `packs/{name}` of a bucket."""

    def __init__(
        self,
        *,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        secure: bool = True,
    ) -> None:
        self._bucket = bucket
        self.reads = self.puts = S3Signer(
            base=f"{'https' if secure else 'http'}://{endpoint}/{bucket}/{_FOLDER}",
            access_key=access_key,
            secret_key=secret_key,
            region=region,
        )
        self._client = Minio(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            secure=secure,
            http_client=urllib3.PoolManager(
                maxsize=_CONNECTIONS,
                timeout=urllib3.Timeout(connect=5, read=_TIMEOUT_SECONDS),
                retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[502, 503]),
            ),
        )

    def checksum(self, name: str) -> tuple[int, bytes] | None:
        """Return the size and SHA-256 of a blob as S3 found them; None without one."""
        try:
            with _s3_errors(name):
                found = self._client.stat_object(
                    self._bucket, _key(name), extra_headers={"x-amz-checksum-mode": "ENABLED"}
                )
        except BlobMissingError:
            return None
        digest = (found.metadata or {}).get("x-amz-checksum-sha256", "")
        return found.size or 0, base64.b64decode(digest)

    def put(self, name: str, source: Path) -> None:
        """Send a file in one request whose checksum the server verifies, then remove it."""
        with disk_errors(), source.open("rb") as file:
            size = source.stat().st_size
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            # One part only: its SHA-256 is that of the whole, and there is no half upload.
            checksum = {"x-amz-checksum-sha256": base64.b64encode(digest).decode()}
            with _s3_errors(name):
                self._client.put_object(
                    self._bucket,
                    _key(name),
                    file,
                    size,
                    metadata=dict(checksum),
                    part_size=PACK_BYTES,
                )
        with disk_errors():
            source.unlink()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly a range of a blob, or raise `BlobMissingError`."""
        with _s3_errors(name):
            response = self._client.get_object(self._bucket, _key(name), offset, length)
            try:
                data: bytes = response.read()
            finally:
                response.close()
                response.release_conn()
        if len(data) != length:
            raise BlobMissingError(name)
        return data

    def size(self, name: str) -> int | None:
        """Return the size of a blob in bytes, or None when there is none."""
        try:
            with _s3_errors(name):
                return self._client.stat_object(self._bucket, _key(name)).size
        except BlobMissingError:
            return None

    def delete(self, name: str) -> None:
        """Remove a blob; there may be none."""
        with _s3_errors(name):
            self._client.remove_object(self._bucket, _key(name))


def _key(name: str) -> str:
    return f"{_FOLDER}/{name}"


@contextmanager
def _s3_errors(name: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in _MISSING:
            raise BlobMissingError(name) from error
        _log.exception("S3 refused", extra={"code": error.code, "blob": name})
        raise unavailable() from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        _log.exception("S3 does not answer", extra={"blob": name})
        raise unavailable() from error
