"""Token files: the credentials of the installation itself, made at first start.

Each `<name>.token` in the folder holds a secret. A missing file is made with a
new one, readable by its owner only; a file whose content changed takes over from
what it held before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from services.common.auth import Right
from services.common.names import WILDCARD
from services.common.safe_start import check_folder, read_private
from services.common.settings import SettingsError
from services.common.sql.database import Database, Transaction
from services.metadata.projects import store
from services.metadata.projects.domain import Grant, Role, TokenDraft, hash_secret, new_secret

OWNERS = {
    "admin": TokenDraft("user:admin", (Grant(WILDCARD, Role.ADMIN),), (Right.OPERATE, Right.AUDIT)),
    "builder": TokenDraft("service:builder", (), (Right.DELEGATE,)),
    "deployer": TokenDraft("service:deployer", (), (Right.DELEGATE,)),
    "worker": TokenDraft("service:worker", (), (Right.WORK,)),
    "agent": TokenDraft("service:agent", (), (Right.CONTROL,)),
}
_SECRET = re.compile(r"myd_[A-Za-z0-9_-]{43,}")


async def register_token_files(
    folder: Path, *, database: Database, clock: Callable[[], datetime]
) -> None:
    """Make the missing token files, and make every file's secret valid.

    Raises:
        SettingsError: a file does not hold a secret, or is not kept from others.
    """
    secrets_by_file = await asyncio.to_thread(_read_all, folder)
    for name, draft in OWNERS.items():
        origin = f"{name}.token"
        registration = _registration(origin, secrets_by_file[origin], draft, clock())
        await database.write(registration)


def _read_all(folder: Path) -> dict[str, str]:
    check_folder(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {f"{name}.token": _secret(folder / f"{name}.token") for name in OWNERS}


def _registration(
    origin: str, secret: str, draft: TokenDraft, now: datetime
) -> Callable[[Transaction], None]:
    token, hashed = f"t{secrets.token_hex(8)}", hash_secret(secret)

    def register(tx: Transaction) -> None:
        store.add_token(tx.connection, token, draft, secret_hash=hashed, now=now, origin=origin)
        store.revoke_others(tx.connection, origin, secret_hash=hashed, now=now)

    return register


def _secret(path: Path) -> str:
    """Read a token file, made first if need be."""
    if not path.exists():
        _make(path)
    secret = read_private(path).decode("ascii", errors="replace").strip()
    if not _SECRET.fullmatch(secret):
        raise SettingsError(f"{path}: must hold a token, `myd_` and 43 characters; delete it")
    return secret


def _make(path: Path) -> None:
    """Write a new secret so that the file is whole or absent; another's file is left alone."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(new_secret() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # another replica was quicker: its file counts
        os.link(draft, path)
    draft.unlink()
