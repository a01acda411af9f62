"""What a worker needs to join a suite: checked before it starts, in words for its operator."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from services.common.safe_start import read_private
from services.common.settings import SettingsError

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"[^\s/]+:[0-9]{1,5}")


class JoinError(Exception):
    """A worker cannot be started so; the message says what to do."""


def environment(
    environ: Mapping[str, str],
    *,
    server: str = "",
    token_file: Path | None = None,
    pool: str = "",
    max_builds: int | None = None,
    name: str = "",
    data: Path | None = None,
    root_certificates: Path | None = None,
) -> dict[str, str]:
    """Return a worker's environment: what is given goes before what is in `environ`.

    Raises:
        JoinError: something is missing, or cannot be read.
    """
    given = {
        "MODELYARD_SUITE_ADDRESS": server,
        "MODELYARD_ROOT_CERTIFICATES": _absolute(root_certificates),
        "MODELYARD_WORKER_TOKEN_FILE": _absolute(token_file),
        "MODELYARD_WORKER_POOL": pool,
        "MODELYARD_WORKER_CONCURRENCY": str(max_builds) if max_builds else "",
        "MODELYARD_WORKER_NAME": name,
        "MODELYARD_WORKER_DATA": _absolute(data),
    }
    merged = {
        "MODELYARD_SUITE_ADDRESS": environ.get("MODELYARD_SERVER", "127.0.0.1:7070"),
        "MODELYARD_WORKER_NAME": socket.gethostname(),
        **environ,
        **{key: value for key, value in given.items() if value},
    }
    _check(merged)
    return merged


def _check(variables: Mapping[str, str]) -> None:
    address, token = (
        variables["MODELYARD_SUITE_ADDRESS"],
        variables.get("MODELYARD_WORKER_TOKEN_FILE", ""),
    )
    if not _ADDRESS.fullmatch(address):
        raise JoinError(f"{address!r} is no address; --server wants host:port")
    if not token:
        raise JoinError(
            "a worker needs its token: --token-file names the suite's worker.token, or a copy of it"
        )
    try:
        read_private(Path(token))
    except SettingsError as error:
        raise JoinError(f"--token-file: {error}") from None
    if variables.get("MODELYARD_ROOT_CERTIFICATES"):
        _readable(variables["MODELYARD_ROOT_CERTIFICATES"], "--root-certificates")
    pool = variables.get("MODELYARD_WORKER_POOL", "default")
    if not _ID.fullmatch(pool):
        raise JoinError(f"{pool!r} is no pool: lowercase letters, digits and -, a letter first")


def _readable(path: str, option: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise JoinError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _absolute(path: Path | None) -> str:
    return "" if path is None else str(path.expanduser().absolute())
