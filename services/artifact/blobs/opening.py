"""Which blob store the settings ask for."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from services.artifact.blobs import BlobStore, ReadSigner
from services.artifact.blobs.disk import DiskBlobs
from services.artifact.settings import PREFIX, ArtifactSettings
from services.common.settings import SettingsError


def open_blobs(settings: ArtifactSettings) -> BlobStore:
    """Open the place that packs lie in."""
    return open_s3(settings) if settings.s3_endpoint else open_disk(settings)


def open_disk(settings: ArtifactSettings, reads: ReadSigner | None = None) -> DiskBlobs:
    """Open the folder that packs lie in."""
    return DiskBlobs(settings.folder / "packs", reads)


def open_s3(settings: ArtifactSettings) -> BlobStore:
    """Open the bucket that packs lie in."""
    endpoint = urlsplit(settings.s3_endpoint)
    if endpoint.scheme not in {"http", "https"} or not endpoint.netloc:
        raise SettingsError(f"{PREFIX}S3_ENDPOINT: must be http://host:port or https://host")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", settings.s3_bucket):
        raise SettingsError(f"{PREFIX}S3_BUCKET: not the name of a bucket")
    # The S3 library takes longer to import than the rest of the service: only who uses it waits.
    from services.artifact.blobs.s3 import S3Blobs  # noqa: PLC0415

    return S3Blobs(
        endpoint=endpoint.netloc,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        region=settings.s3_region,
        secure=endpoint.scheme == "https",
    )
