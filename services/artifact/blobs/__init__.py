"""Where finished packs lie: one small protocol, a folder or an S3 bucket behind it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from services.artifact.blobs.signing import Signer
from services.common.disk_failure import note_disk_failure
from services.common.errors import Reason, ServiceError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_log = logging.getLogger(__name__)


class BlobMissingError(Exception):
    """There is no blob of that name, or it is shorter than what was asked for."""


class BlobStore(Protocol):
    """Keep finished blobs under names of lowercase hex digits.

    Methods block and are called in threads; they raise `ServiceError` when the
    storage is full or away.
    """

    @property
    def signer(self) -> Signer | None:
        """What lets others reach single blobs; None when only this service can."""

    def key(self, name: str) -> str:
        """Return what a blob is called where its signer's grants reach."""

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
