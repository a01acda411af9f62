"""The roster of a project: who is a member of it, as what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from services.common.auth import EVERY_PROJECT, Identity, Right
from services.common.errors import not_found, wrong_state
from services.common.names import ProjectName
from services.common.sql.database import Database, Transaction
from services.common.sql.idempotency import Key, once
from services.metadata.listing import Listing, Page
from services.metadata.members import store
from services.metadata.members.domain import Member
from services.metadata.projects.domain import Role
from services.metadata.projects.store import find_project


class Roster:
    """Gives roles, takes them away, lists them."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def set(
        self, parent: ProjectName, principal: str, role: Role, *, caller: Identity, key: Key | None
    ) -> Member:
        """Give a principal a role, in place of the one it had.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when no admin would be left.
        """
        member = Member(parent.project, principal, role, caller.principal, self._clock())

        def write(tx: Transaction) -> Member:
            _lock(tx, parent)
            if role is not Role.ADMIN:
                _keep_an_admin(tx, parent, principal, caller)
            store.put_member(tx.connection, member)
            return member

        return await self._database.write(lambda tx: once(tx, key, Member, lambda: write(tx)))

    async def remove(self, parent: ProjectName, principal: str, *, caller: Identity) -> None:
        """Take a principal's role away; without one there is nothing to do.

        Raises:
            ServiceError: RESOURCE_NOT_FOUND; WRONG_STATE when no admin would be left.
        """

        def write(tx: Transaction) -> None:
            _lock(tx, parent)
            _keep_an_admin(tx, parent, principal, caller)
            store.delete_member(tx.connection, parent.project, principal)

        await self._database.write(write)

    async def list(self, parent: ProjectName, listing: Listing) -> Page[Member]:
        """Return a page of a project's members."""
        return await self._database.read(
            lambda tx: store.list_members(tx.connection, parent.project, listing)
        )


def _lock(tx: Transaction, parent: ProjectName) -> None:
    """Let one change of a project's roster come after the other."""
    if parent.project == EVERY_PROJECT:
        return
    if find_project(tx.connection, parent.project, lock=True) is None:
        raise not_found(parent)


def _keep_an_admin(tx: Transaction, parent: ProjectName, principal: str, caller: Identity) -> None:
    """Refuse that the last admin goes by his own hand: nobody in the project could undo it."""
    if principal != caller.principal or caller.may(Right.ADMIN, EVERY_PROJECT):
        return
    if not store.has_other_admin(tx.connection, parent.project, principal):
        raise wrong_state(parent, "", f"{principal} is the last admin of {parent}")
