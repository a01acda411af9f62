"""Projects, tokens, delegations, and the rights that roles give."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from services.common.auth import Identity, Right
from services.common.names import ProjectName, TokenName

SECRET_PREFIX = "myd_"  # noqa: S105 - what every secret begins with
SECRET_BYTES = 32


class Role(StrEnum):
    """A named set of rights in a project; each holds all rights of the ones before it."""

    VIEWER = "VIEWER"
    CONTRIBUTOR = "CONTRIBUTOR"
    BUILDER = "BUILDER"
    DEPLOYER = "DEPLOYER"
    ADMIN = "ADMIN"


_LADDER = (
    (Role.VIEWER, Right.READ),
    (Role.CONTRIBUTOR, Right.WRITE),
    (Role.BUILDER, Right.BUILD),
    (Role.DEPLOYER, Right.DEPLOY),
    (Role.ADMIN, Right.ADMIN),
)
INSTALLATION_RIGHTS = frozenset(
    {Right.OPERATE, Right.AUDIT, Right.WORK, Right.CONTROL, Right.DELEGATE}
)
PROJECT_RIGHTS = frozenset(right for _, right in _LADDER)


def rights_of(role: Role) -> frozenset[Right]:
    """Return the rights a role holds."""
    place = [step for step, _ in _LADDER].index(role)
    return frozenset(right for _, right in _LADDER[: place + 1])


@dataclass(frozen=True, slots=True)
class ProjectDraft:
    """What the caller says of a project."""

    display_name: str = ""
    description: str = ""
    # Aliases, of any model, that only who may deploy may move or delete.
    protected_aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A boundary of names, rights, quotas and deletion."""

    project: str
    display_name: str
    description: str
    protected_aliases: tuple[str, ...]
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None

    @property
    def name(self) -> ProjectName:
        """Name the project."""
        return ProjectName(self.project)

    def changed(self, values: Mapping[str, Any], now: datetime) -> Project:
        """Return the project with new values, one revision on."""
        return replace(self, **values, revision=self.revision + 1, update_time=now)


def new_project(project: str, draft: ProjectDraft, now: datetime) -> Project:
    """Return a project as it begins."""
    return Project(
        project, draft.display_name, draft.description, draft.protected_aliases, 1, now, now
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """A role in one project, or in all of them (`-`)."""

    project: str
    role: Role


@dataclass(frozen=True, slots=True)
class TokenDraft:
    """What a token is to be."""

    principal: str
    grants: tuple[Grant, ...] = ()
    installation_rights: tuple[Right, ...] = ()
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A credential of a user or a machine, without its secret."""

    token: str
    principal: str
    grants: tuple[Grant, ...]
    installation_rights: tuple[Right, ...]
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    last_use_time: datetime | None = None
    """When it was last used, to within a minute."""

    @property
    def name(self) -> TokenName:
        """Name the token."""
        return TokenName(self.token)

    def is_valid(self, now: datetime) -> bool:
        """Say whether the token may still be used."""
        return self.revoke_time is None and (self.expire_time is None or now < self.expire_time)


@dataclass(frozen=True, slots=True)
class Credential:
    """Whom a credential stands for, and until when."""

    identity: Identity
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a delegation says: who lets whom do what, until when."""

    principal: str
    project: str
    resource: str
    rights: frozenset[Right]
    expire_time: datetime
    voucher: str = ""
    """The service that renewed it and so owns the work; empty: only the principal says so."""


@dataclass(frozen=True, slots=True)
class IssuedDelegation:
    """A delegation's credential, and until when it is valid."""

    credential: str
    expire_time: datetime


def new_secret() -> str:
    """Make a token's secret."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_secret(secret: str) -> bytes:
    """Return what is kept of a secret; its 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode()).digest()


def project_rights(tokens: Iterable[Token]) -> Mapping[str, frozenset[Right]]:
    """Return the rights that tokens give together, by project (`-` for all)."""
    rights: dict[str, frozenset[Right]] = {}
    for token in tokens:
        for grant in token.grants:
            held = rights.get(grant.project, frozenset())
            rights[grant.project] = held | rights_of(grant.role)
    return rights


def joined(
    first: Mapping[str, frozenset[Right]], second: Mapping[str, frozenset[Right]]
) -> Mapping[str, frozenset[Right]]:
    """Return the rights of both, by project."""
    nothing: frozenset[Right] = frozenset()
    return {p: first.get(p, nothing) | second.get(p, nothing) for p in first.keys() | second.keys()}
