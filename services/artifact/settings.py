"""The artifact service's settings, read from `MODELYARD_ARTIFACT_*`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from services.artifact.domain import PACK_BYTES

PREFIX = "MODELYARD_ARTIFACT_"


@dataclass(frozen=True, slots=True)
class ArtifactSettings:
    """Where the artifact service keeps what it owns."""

    data: str = "modelyard-data/artifact"
    """A local folder: unfinished packs, and with no S3 endpoint also packs and database."""
    database_url: str = ""
    """Such as `postgresql://user@host/artifact`; empty: a SQLite file in `data`."""
    s3_endpoint: str = ""
    """`http://host:port` or `https://host`; empty: packs lie in `data`."""
    s3_bucket: str = "modelyard"
    """The bucket; it must exist."""
    s3_region: str = "us-east-1"
    """The bucket's region."""
    s3_access_key: str = ""
    """The access key."""
    s3_secret_key: str = field(default="", repr=False)
    """The secret key."""
    pack_bytes: Annotated[int, msgspec.Meta(ge=1024 * 1024, le=PACK_BYTES)] = PACK_BYTES
    """How large a pack may grow: so much of an upload is acknowledged at a time."""
    lease_seconds: float = 86_400.0
    """How long what was sent is kept before something refers to it."""
    sweep_seconds: float = 600.0
    """How often what nothing needs is swept; 0: never."""
    grace_seconds: float = 3_600.0
    """How long what is to go is left where it is: readers may be at it."""
    compact_share: float = 0.5
    """A pack of which less than this share is needed is rewritten."""
    scrub_bytes_per_second: float = 8.0 * 1024 * 1024
    """How fast stored bytes are read over in the background; 0: never."""
    scrub_days: float = 30.0
    """How often every pack is read over, if the rate allows."""
    http_listen: str = ""
    """`host:port` where files, and packs in `data`, are read over HTTP; empty: nowhere."""
    http_url: str = ""
    """What links and grants begin with, when that is not where it listens:
    `https://files.example.com`."""
    http_tls_certificate: str = ""
    """A PEM file; required off loopback."""
    http_tls_key: str = ""
    """A PEM file; required off loopback."""
    temporary_seconds: float = 3_600.0
    """How old an unfinished pack must be at start to count as left by a killed process."""

    @property
    def folder(self) -> Path:
        """Return the local folder."""
        return Path(self.data).absolute()

    @property
    def url(self) -> str:
        """Return the database's URL."""
        return self.database_url or f"sqlite:///{self.folder / 'artifact.db'}"
