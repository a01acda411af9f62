"""Object storage as a grant lets it be reached: one signed request at a time.

Needs urllib3, which comes with `modelyard[transfer]`; without it, or where the storage cannot be
reached from here, bytes go through the artifact service. MODELYARD_DIRECT=off chooses that.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modelyard.artifact.v1 import transfer_service_pb2 as service

if TYPE_CHECKING:
    import urllib3

_CONNECTIONS = 16
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_AVOID_SECONDS = 60.0

_avoided: dict[str, float] = {}


def usable() -> bool:
    """Say whether bytes may go straight to storage as far as this process is concerned."""
    off = os.environ.get("MODELYARD_DIRECT", "").lower() in ("off", "0", "false")
    return not off and importlib.util.find_spec("urllib3") is not None


def put(grant: service.Grant, data: bytes | bytearray) -> bool:
    """Put an object; False when it did not get there, for whatever reason."""
    return _request(grant, {}, body=data) is not None


def get(grant: service.Grant, offset: int, length: int) -> bytes | None:
    """Return a range of an object; None when it did not get here, for whatever reason."""
    data = _request(grant, {"Range": f"bytes={offset}-{offset + length - 1}"})
    return data if data is not None and len(data) == length else None


def _request(
    grant: service.Grant, more: dict[str, str], body: bytes | bytearray = b""
) -> bytes | None:
    """Make a granted request; None when it fails, after which its host is left alone for a while.

    A put that is repeated because its answer was lost finds its own object there (412).
    """
    import urllib3  # noqa: PLC0415

    host = urlsplit(grant.url).netloc
    if _avoided.get(host, 0.0) > time.monotonic():
        return None
    headers = {**grant.headers, **more}
    content: Any = body or None  # a bytearray too, of which its annotations do not know
    try:
        answer = _pool().request(grant.method, grant.url, headers=headers, body=content)
    except urllib3.exceptions.HTTPError:
        _avoided[host] = time.monotonic() + _AVOID_SECONDS
        return None
    return answer.data if answer.status in (200, 206, 412) else None


@functools.cache
def _pool() -> urllib3.PoolManager:
    import urllib3  # noqa: PLC0415

    return urllib3.PoolManager(
        maxsize=_CONNECTIONS,
        timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        retries=urllib3.Retry(total=2, backoff_factor=0.2, status=0, redirect=0),
    )
