"""The table and queries of members."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.common.sql.database import Timestamp
from services.metadata.listing import Listing, Page
from services.metadata.members.domain import Member
from services.metadata.projects.domain import Role
from services.metadata.schema import METADATA, BinaryText, Sort, fetch_page, upsert

MEMBERS = sa.Table(
    "members",
    METADATA,
    sa.Column("project", sa.Text, primary_key=True),
    sa.Column("principal", BinaryText, primary_key=True, index=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("setter", sa.Text, nullable=False),
    sa.Column("update_time", Timestamp, nullable=False),
)


def put_member(connection: Connection, member: Member) -> None:
    """Write a member, in place of the role he had."""
    row = {
        "project": member.project,
        "principal": member.principal,
        "role": member.role.value,
        "setter": member.setter,
        "update_time": member.update_time,
    }
    upsert(connection, MEMBERS, ["project", "principal"], [row])


def delete_member(connection: Connection, project: str, principal: str) -> None:
    """Remove a member; there may be none."""
    is_it = sa.and_(MEMBERS.c.project == project, MEMBERS.c.principal == principal)
    connection.execute(MEMBERS.delete().where(is_it))


def delete_members(connection: Connection, project: str) -> None:
    """Remove all members of a project."""
    connection.execute(MEMBERS.delete().where(MEMBERS.c.project == project))


def memberships(connection: Connection, principal: str) -> list[Member]:
    """Return what a principal is a member of."""
    query = sa.select(MEMBERS).where(MEMBERS.c.principal == principal)
    return [_member(row) for row in connection.execute(query)]


def has_other_admin(connection: Connection, project: str, principal: str) -> bool:
    """Say whether a project has an admin among its members beside one principal."""
    query = (
        sa.select(sa.literal(1))
        .where(
            MEMBERS.c.project == project,
            MEMBERS.c.role == Role.ADMIN.value,
            MEMBERS.c.principal != principal,
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def list_members(connection: Connection, project: str, listing: Listing) -> Page[Member]:
    """Return a page of a project's members by principal."""
    query = sa.select(MEMBERS).where(MEMBERS.c.project == project)
    sorts = [Sort(MEMBERS.c.principal, str)]
    rows, token = fetch_page(connection, query, sorts, listing=listing, scope=f"members\n{project}")
    return Page(tuple(_member(row) for row in rows), token)


def _member(row: Row[Any]) -> Member:
    return Member(row.project, row.principal, Role(row.role), row.setter, row.update_time)
