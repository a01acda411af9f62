"""Signed requests: how others may reach single objects of a bucket without its keys.

Requests are signed as AWS Signature Version 4 says, in their headers: S3 itself
refuses them when they are more than 15 minutes old. A put is bound to its length
and SHA-256, which S3 checks (`x-amz-checksum-sha256`), and to there being no such
object yet (`If-None-Match: *`).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from minio import time as signing_time
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from services.artifact.blobs import VALID, Grant

_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def now() -> datetime:
    """Return the present moment."""
    return datetime.now(UTC)


class S3Signer:
    """Signs requests for objects under one URL, that of a bucket's folder."""

    def __init__(self, *, base: str, access_key: str, secret_key: str, region: str) -> None:
        self._base = base
        self._credentials = Credentials(access_key, secret_key)
        self._region = region

    async def put(self, name: str, size: int, sha256: bytes) -> Grant:
        """Let an object be put that has a size and a SHA-256, once."""
        headers = {
            "Content-Length": str(size),
            "If-None-Match": "*",
            "x-amz-checksum-sha256": base64.b64encode(sha256).decode(),
        }
        return self._sign("PUT", name, headers, sha256.hex())

    async def get(self, name: str) -> Grant:
        """Let an object be read, whole or by ranges."""
        return self._sign("GET", name, {}, _EMPTY)

    def _sign(self, method: str, name: str, headers: dict[str, str], content: str) -> Grant:
        made = now()
        url = urlsplit(f"{self._base}/{quote(name)}")
        signed = sign_v4_s3(
            method=method,
            url=url,
            region=self._region,
            headers={
                **headers,
                "Host": url.netloc,
                "x-amz-content-sha256": content,
                "x-amz-date": signing_time.to_amz_date(made),
            },
            credentials=self._credentials,
            content_sha256=content,
            date=made,
        )
        return Grant(method, url.geturl(), {k: str(v) for k, v in signed.items()}, made + VALID)
