"""The directory of projects and tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from datetime import datetime

from services.common.auth import Identity, Right
from services.common.errors import (
    Reason,
    ServiceError,
    already_exists,
    etag_mismatch,
    invalid_field,
    not_found,
    wrong_state,
)
from services.common.names import WILDCARD, ProjectName, TokenName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.changes import Change, ChangeKind, publish
from services.metadata.listing import Listing, Page
from services.metadata.projects import store
from services.metadata.projects.domain import (
    Project,
    ProjectDraft,
    Token,
    TokenDraft,
    hash_secret,
    new_project,
    new_secret,
)

DEFAULT_PROJECT = "default"


class Directory:
    """Creates, finds and lists projects and tokens."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def create_project(
        self, name: ProjectName, draft: ProjectDraft, *, actor: str, key: Key | None
    ) -> Project:
        """Create a project.

        Raises:
            ServiceError: RESOURCE_EXISTS, also of one that is gone.
        """
        now = self._clock()
        project = new_project(name.project, draft, now)

        def create(tx: Transaction) -> Project:
            if not store.add_project(tx.connection, project):
                raise _taken(tx, name)
            created = Change(str(name), actor=actor)
            publish(tx, name.project, ChangeKind.PROJECT_CREATED, created)
            return project

        return await self._database.write(lambda tx: once(tx, key, Project, lambda: create(tx)))

    async def ensure_default_project(self) -> None:
        """Create the project `default` unless it exists."""
        now = self._clock()
        project = new_project(DEFAULT_PROJECT, ProjectDraft("Default"), now)
        await self._database.write(lambda tx: store.add_project(tx.connection, project))

    async def update_project(
        self,
        name: ProjectName,
        draft: ProjectDraft,
        *,
        paths: Collection[str],
        etag: str,
        actor: str,
        key: Key | None,
    ) -> Project:
        """Change the fields named by `paths`.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND, ETAG_MISMATCH; WRONG_STATE when it is deleted.
        """
        now = self._clock()

        def change(tx: Transaction) -> Project:
            current = store.find_project(tx.connection, name.project, lock=True)
            if current is None:
                raise not_found(name)
            if current.delete_time is not None:
                raise wrong_state(name, "DELETED", f"{name} is deleted; restore it first")
            if etag and etag != str(current.revision):
                raise etag_mismatch(name, current=str(current.revision))
            changed = current.changed({path: getattr(draft, path) for path in paths}, now)
            store.change_project(tx.connection, changed)
            told = Change(str(name), actor=actor)
            publish(tx, name.project, ChangeKind.PROJECT_UPDATED, told)
            return changed

        return await self._database.write(lambda tx: once(tx, key, Project, lambda: change(tx)))

    async def get_project(self, name: ProjectName) -> Project:
        """Return a project."""
        found = await self._database.read(
            lambda tx: store.find_project(tx.connection, name.project)
        )
        if found is None:
            raise not_found(name)
        return found

    async def list_projects(self, caller: Identity, listing: Listing) -> Page[Project]:
        """Return a page of the projects that the caller may read."""
        readable = {p for p, rights in caller.project_rights.items() if Right.READ in rights}
        among = None if WILDCARD in readable else readable
        return await self._database.read(
            lambda tx: store.list_projects(tx.connection, listing, among=among)
        )

    async def create_token(self, draft: TokenDraft, *, key: Key | None) -> tuple[Token, str]:
        """Create a token; return it with its secret, which is kept nowhere.

        Raises:
            ServiceError: REQUEST_ID_REUSED on a repeat: the secret cannot be shown again.
        """
        now, secret = self._clock(), new_secret()
        if draft.expire_time is not None and draft.expire_time <= now:
            raise invalid_field("token.expire_time", "must lie in the future")
        token = f"t{secrets.token_hex(8)}"

        def create(tx: Transaction) -> Token:
            hashed = hash_secret(secret)
            added = store.add_token(tx.connection, token, draft, secret_hash=hashed, now=now)
            assert added is not None  # noqa: S101 - 256 random bits do not repeat
            return added

        created = await self._database.write(lambda tx: once(tx, key, Token, lambda: create(tx)))
        if created.token != token:
            raise _secret_shown(created.token, key)
        return created, secret

    async def list_tokens(self, listing: Listing) -> Page[Token]:
        """Return a page of tokens, newest first."""
        return await self._database.read(lambda tx: store.list_tokens(tx.connection, listing))

    async def revoke_token(self, name: TokenName) -> Token:
        """Revoke a token; revoking it again changes nothing."""
        now = self._clock()
        revoked = await self._database.write(
            lambda tx: store.revoke_token(tx.connection, name.token, now)
        )
        if revoked is None:
            raise not_found(name)
        return revoked


def _taken(tx: Transaction, name: ProjectName) -> ServiceError:
    if store.find_project(tx.connection, name.project) is not None:
        return already_exists(name)
    message = f"{name} was purged; the id of a project is never given out again"
    return ServiceError(Reason.RESOURCE_EXISTS, message, resource=str(name))


def _secret_shown(token: str, key: Key | None) -> ServiceError:
    return ServiceError(
        Reason.REQUEST_ID_REUSED,
        f"tokens/{token} was created by this request_id; its secret cannot be shown again",
        request_id=key.request_id if key else "",
    )
