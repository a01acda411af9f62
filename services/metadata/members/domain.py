"""Members of projects, and the rights their roles give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from services.common.auth import Right
from services.metadata.projects.domain import Role, rights_of


@dataclass(frozen=True, slots=True)
class Member:
    """A principal with a role in a project, or in all of them (`-`)."""

    project: str
    principal: str
    role: Role
    setter: str
    update_time: datetime


def rights_of_members(members: Iterable[Member]) -> Mapping[str, frozenset[Right]]:
    """Return the rights of one principal's memberships, by project (`-` for all)."""
    return {member.project: rights_of(member.role) for member in members}
