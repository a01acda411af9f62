"""A build's git source: fetched by a process of its own, with a secret if the build names one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from modelyard.builder.v1 import build_pb2

from services.builder.worker import errands
from services.builder.worker.settings import WorkerSettings

ANY_USER = "git"
"""The user that goes with a bare token: forges look at the token alone."""
_PROGRAM = "services.builder.worker.git_fetch"


class GitFailedError(Exception):
    """There is no source; the text is for whoever ordered the build."""


async def fetch(
    git: build_pb2.GitSource,
    folder: Path,
    *,
    secrets: Mapping[str, str],
    settings: WorkerSettings,
) -> build_pb2.SourceOrigin:
    """Write what a git source points to now into a new folder; return where it came from.

    Raises:
        GitFailedError: it cannot be had.
    """
    await asyncio.to_thread(folder.mkdir, 0o700)
    username, password = _login(secrets[git.secret]) if git.secret else ("", "")
    order = {
        "url": git.url,
        "ref": git.ref,
        "subdirectory": git.subdirectory,
        "folder": str(folder),
        "schemes": ["https", "http"] if settings.git_http else ["https"],
        "max_bytes": settings.source_bytes,
        "username": username,
        "password": password,
    }
    answer = await errands.ask(_PROGRAM, order)
    if "commit" not in answer:
        raise GitFailedError(answer.get("problem") or "it broke off")
    return build_pb2.SourceOrigin(
        repository=git.url, commit=answer["commit"], branch=answer["branch"]
    )


def _login(secret: str) -> tuple[str, str]:
    user, colon, password = secret.strip().partition(":")
    return (user, password) if colon else (ANY_USER, user)
