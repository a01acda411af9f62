"""`client.members`: who may do what in a project."""

from __future__ import annotations

from modelyard._names import Names, Ref
from modelyard._resources.tokens import role_number
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.metadata.v1 import member_pb2
from modelyard.metadata.v1 import member_service_pb2 as service


class _Members(Group):
    @unary
    def set(
        self, principal: str, role: str, *, project: Ref | None = None
    ) -> Call[member_pb2.Member]:
        """Give a principal a role (`viewer`, `contributor`, `builder`, `deployer`, `admin`).

        Without a project it is the client's own; `-` is all of them.
        """
        request = service.SetMemberRequest(
            parent=_parent(self._names, project),
            member=member_pb2.Member(principal=principal, role=role_number(role)),
            request_id=new_request_id(),
        )
        return call(request, service.SetMemberResponse, lambda r: r.member)

    @unary
    def remove(self, principal: str, *, project: Ref | None = None) -> Call[None]:
        """Take a principal's role away; without one there is nothing to do."""
        parent = _parent(self._names, project)
        request = service.RemoveMemberRequest(parent=parent, principal=principal)
        return call(request, service.RemoveMemberResponse, lambda _: None)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[member_pb2.Member]:
        """List a project's members by principal; `-` lists those of all projects."""
        request = service.ListMembersRequest(parent=_parent(self._names, project))
        return pages(request, service.ListMembersResponse, lambda r: r.members)


class Members(_Members, SyncGroup):
    """Who may do what in a project."""


class AsyncMembers(_Members, AsyncGroup):
    """Who may do what in a project."""


def _parent(names: Names, project: Ref | None) -> str:
    return "projects/-" if project == "-" else names.project(project)
