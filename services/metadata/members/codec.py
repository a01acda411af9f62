"""Between messages and domain: members."""

from __future__ import annotations

from modelyard.metadata.v1 import member_pb2, project_pb2

from services.metadata import limits
from services.metadata.members.domain import Member
from services.metadata.projects.codec import role_from
from services.metadata.projects.domain import Role
from services.metadata.wire import stamp


def principal(text: str, field: str) -> str:
    """Return a principal as a caller wrote it, or refuse it."""
    return limits.line(text, field, limits.PRINCIPAL, required=True)


def role(message: member_pb2.Member) -> Role:
    """Return the role that a member is to have."""
    return role_from(message.role, "member.role")


def member(found: Member) -> member_pb2.Member:
    """Return a member's message."""
    message = member_pb2.Member(
        principal=found.principal,
        role=project_pb2.Role.Value(f"ROLE_{found.role}"),
        setter=found.setter,
    )
    stamp(message.update_time, found.update_time)
    return message
