"""Tables and queries of projects, tokens and signing keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.auth import Right
from services.common.errors import not_found, wrong_state
from services.common.names import ProjectName
from services.common.sql.database import Timestamp
from services.metadata.listing import Listing, Page
from services.metadata.projects.domain import Grant, Project, Token, TokenDraft
from services.metadata.schema import METADATA, Sort, by_time, fetch_page, insert_new
from services.metadata.values import pack

PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("protected_aliases", sa.LargeBinary, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
    sa.Column("delete_time", Timestamp),
    # Of one that is gone for ever the row stays: its id is never given out again.
    sa.Column("purge_time", Timestamp),
)
TOKENS = sa.Table(
    "tokens",
    METADATA,
    sa.Column("token", sa.Text, primary_key=True),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False, unique=True),
    # The token file it was read from; empty when it was issued by a call.
    sa.Column("origin", sa.Text, nullable=False, index=True),
    sa.Column("principal", sa.Text, nullable=False, index=True),
    sa.Column("grants", sa.LargeBinary, nullable=False),
    sa.Column("installation_rights", sa.LargeBinary, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
    sa.Column("expire_time", Timestamp),
    sa.Column("revoke_time", Timestamp),
    sa.Column("last_use_time", Timestamp),
)
SIGNING_KEYS = sa.Table(
    "signing_keys",
    METADATA,
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("private_key", sa.LargeBinary, nullable=False),
    sa.Column("create_time", Timestamp, nullable=False),
)
_HOLD_PROJECT = (
    sa.select(PROJECTS.c.delete_time)
    .where(PROJECTS.c.project == sa.bindparam("project"), PROJECTS.c.purge_time.is_(None))
    .with_for_update(read=True)
)


def add_project(connection: Connection, project: Project) -> bool:
    """Insert a project; False when it exists."""
    row = insert_new(
        connection,
        PROJECTS,
        ["project"],
        create_time=project.create_time,
        **_columns(project),
    )
    return row is not None


def change_project(connection: Connection, project: Project) -> None:
    """Write a changed project; it must be locked."""
    is_it = PROJECTS.c.project == project.project
    connection.execute(PROJECTS.update().where(is_it).values(**_columns(project)))


def find_project(connection: Connection, project: str, *, lock: bool = False) -> Project | None:
    """Return a project, or None; locked until the transaction's end if asked for."""
    is_it = sa.and_(PROJECTS.c.project == project, PROJECTS.c.purge_time.is_(None))
    query = sa.select(PROJECTS).where(is_it)
    query = query.with_for_update() if lock else query
    row = connection.execute(query).first()
    return None if row is None else _project(row)


def hold_project(connection: Connection, name: ProjectName) -> None:
    """Keep a project from being deleted until the transaction's end.

    Raises:
        ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when it is deleted.
    """
    row = connection.execute(_HOLD_PROJECT, {"project": name.project}).first()
    if row is None:
        raise not_found(name)
    if row.delete_time is not None:
        raise wrong_state(name, "DELETED", f"{name} is deleted; restore it first")


def set_purged(connection: Connection, project: str, now: datetime) -> None:
    """Note that a project is gone for ever."""
    is_it = PROJECTS.c.project == project
    connection.execute(PROJECTS.update().where(is_it).values(purge_time=now))


def list_projects(
    connection: Connection, listing: Listing, *, among: Collection[str] | None
) -> Page[Project]:
    """Return a page of projects by id, of those named; None: of all."""
    shown = PROJECTS.c.purge_time if listing.show_deleted else PROJECTS.c.delete_time
    query = sa.select(PROJECTS).where(shown.is_(None))
    if among is not None:
        query = query.where(PROJECTS.c.project.in_(sorted(among)))
    sorts = [Sort(PROJECTS.c.project, str)]
    rows, token = fetch_page(
        connection, query, sorts, listing=listing, scope=f"projects\n{listing.show_deleted}"
    )
    return Page(tuple(_project(row) for row in rows), token)


def add_token(
    connection: Connection,
    token: str,
    draft: TokenDraft,
    *,
    secret_hash: bytes,
    now: datetime,
    origin: str = "",
) -> Token | None:
    """Insert a token; None when its secret is known already."""
    row = insert_new(
        connection,
        TOKENS,
        ["secret_hash"],
        token=token,
        secret_hash=secret_hash,
        origin=origin,
        principal=draft.principal,
        grants=pack(draft.grants),
        installation_rights=pack(draft.installation_rights),
        create_time=now,
        expire_time=draft.expire_time,
        revoke_time=None,
        last_use_time=None,
    )
    return None if row is None else _token(row)


def find_token(connection: Connection, secret_hash: bytes) -> Token | None:
    """Return the token of a secret, or None."""
    row = connection.execute(sa.select(TOKENS).where(TOKENS.c.secret_hash == secret_hash)).first()
    return None if row is None else _token(row)


def tokens_of(connection: Connection, principal: str) -> list[Token]:
    """Return all tokens of a principal, also those that are not valid any more."""
    query = sa.select(TOKENS).where(TOKENS.c.principal == principal)
    return [_token(row) for row in connection.execute(query)]


def list_tokens(connection: Connection, listing: Listing) -> Page[Token]:
    """Return a page of tokens, newest first."""
    sorts = [by_time(TOKENS.c.create_time, descending=True), Sort(TOKENS.c.token, str)]
    rows, token = fetch_page(connection, sa.select(TOKENS), sorts, listing=listing, scope="tokens")
    return Page(tuple(_token(row) for row in rows), token)


def revoke_token(connection: Connection, token: str, now: datetime) -> Token | None:
    """Revoke a token, once; None when there is none."""
    is_valid = sa.and_(TOKENS.c.token == token, TOKENS.c.revoke_time.is_(None))
    connection.execute(TOKENS.update().where(is_valid).values(revoke_time=now))
    row = connection.execute(sa.select(TOKENS).where(TOKENS.c.token == token)).first()
    return None if row is None else _token(row)


def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Note when tokens were last used; an older moment than the noted one changes nothing."""
    is_it = TOKENS.c.token == sa.bindparam("noted")
    is_newer = sa.or_(
        TOKENS.c.last_use_time.is_(None), TOKENS.c.last_use_time < sa.bindparam("moment")
    )
    statement = TOKENS.update().where(is_it, is_newer).values(last_use_time=sa.bindparam("moment"))
    connection.execute(statement, [{"noted": t, "moment": m} for t, m in sorted(uses.items())])


def revoke_others(
    connection: Connection, origin: str, *, secret_hash: bytes, now: datetime
) -> None:
    """Revoke what a token file held before."""
    outdated = sa.and_(
        TOKENS.c.origin == origin,
        TOKENS.c.secret_hash != secret_hash,
        TOKENS.c.revoke_time.is_(None),
    )
    connection.execute(TOKENS.update().where(outdated).values(revoke_time=now))


def keep_signing_key(
    connection: Connection, purpose: str, private_key: bytes, now: datetime
) -> bytes:
    """Insert a key unless there is one of this purpose; return the one that is kept."""
    insert_new(
        connection,
        SIGNING_KEYS,
        ["purpose"],
        purpose=purpose,
        private_key=private_key,
        create_time=now,
    )
    query = sa.select(SIGNING_KEYS.c.private_key).where(SIGNING_KEYS.c.purpose == purpose)
    return bytes(connection.execute(query).scalar_one())


def _columns(project: Project) -> dict[str, Any]:
    return {
        "project": project.project,
        "display_name": project.display_name,
        "description": project.description,
        "protected_aliases": pack(project.protected_aliases),
        "revision": project.revision,
        "update_time": project.update_time,
        "delete_time": project.delete_time,
    }


def _project(row: Row[Any]) -> Project:
    return Project(
        project=row.project,
        display_name=row.display_name,
        description=row.description,
        protected_aliases=msgspec.msgpack.decode(row.protected_aliases, type=tuple[str, ...]),
        revision=row.revision,
        create_time=row.create_time,
        update_time=row.update_time,
        delete_time=row.delete_time,
    )


def _token(row: Row[Any]) -> Token:
    return Token(
        token=row.token,
        principal=row.principal,
        grants=msgspec.msgpack.decode(row.grants, type=tuple[Grant, ...]),
        installation_rights=msgspec.msgpack.decode(row.installation_rights, type=tuple[Right, ...]),
        create_time=row.create_time,
        expire_time=row.expire_time,
        revoke_time=row.revoke_time,
        last_use_time=row.last_use_time,
    )
