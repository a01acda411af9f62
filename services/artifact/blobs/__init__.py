"""Where finished packs lie: one small protocol, a folder or an S3 bucket behind it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from services.common.errors import Reason, ServiceError
from services.common.processes.disk_failure import note_disk_failure

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_log = logging.getLogger(__name__)


class BlobMissingError(Exception):
    """There is no blob of that name, or it is shorter than what was asked for."""


VALID = timedelta(minutes=15)
"""How long a grant is good for, at most."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One signed HTTP request for one blob."""

    method: str
    url: str
    headers: Mapping[str, str]
    expire_time: datetime


class ReadSigner(Protocol):
    """Lets others read single blobs over HTTP."""

    async def get(self, name: str) -> Grant:
        """Let a blob be read, whole or by ranges."""


class PutSigner(Protocol):
    """Lets others put single blobs over HTTP."""

    async def put(self, name: str, size: int, sha256: bytes) -> Grant:
        """Let a blob be put that has a size and a SHA-256, once."""


class BlobStore(Protocol):
    """Keep finished blobs under names of lowercase hex digits.

    Methods block and are called in threads; they raise `ServiceError` when the
    storage is full or away.
    """

    @property
    def reads(self) -> ReadSigner | None:
        """What lets others read single blobs; None when only this service can."""

    @property
    def puts(self) -> PutSigner | None:
        """What lets others put single blobs; None when only this service can."""

    def checksum(self, name: str) -> tuple[int, bytes] | None:
        """Return the size and SHA-256 of a blob as the storage found them; None without one."""

    def put(self, name: str, source: Path) -> None:
        """Take over a finished local file; it is durable on return, and the file is gone."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return exactly a range of a blob, or raise `BlobMissingError`."""

    def size(self, name: str) -> int | None:
        """Return the size of a blob in bytes, or None when there is none."""

    def delete(self, name: str) -> None:
        """Remove a blob; there may be none."""


def unavailable() -> ServiceError:
    """Say that the storage does not answer as it should."""
    return ServiceError(
        Reason.SERVICE_UNAVAILABLE, "the artifact storage does not answer; try again"
    )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Translate a full or failing disk into what the caller is told."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ServiceError(
                Reason.LIMIT_EXCEEDED,
                "the artifact storage is full; free some space and try again",
                limit="disk",
                maximum="",
            ) from error
        if error.errno == errno.EIO:
            note_disk_failure()
        _log.exception("artifact storage failed")
        raise unavailable() from error
