"""The gRPC edge of members: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import member_service_pb2 as pb
from modelyard.metadata.v1 import member_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import ProjectName
from services.metadata.members import codec
from services.metadata.members.roster import Roster
from services.metadata.wire import listing

Context = grpc.aio.ServicerContext[Any, Any]


class MemberServicer(member_service_pb2_grpc.MemberServiceServicer):
    """Serve `modelyard.metadata.v1.MemberService`."""

    def __init__(self, *, roster: Roster) -> None:
        self._roster = roster

    async def SetMember(
        self, request: pb.SetMemberRequest, context: Context
    ) -> pb.SetMemberResponse:
        """Give a principal a role."""
        call, parent = current_call(), ProjectName.parse(request.parent, "parent", wildcard=True)
        principal = codec.principal(request.member.principal, "member.principal")
        role, key = codec.role(request.member), call.key(request)
        member = await self._roster.set(parent, principal, role, caller=call.caller, key=key)
        return pb.SetMemberResponse(member=codec.member(member))

    async def RemoveMember(
        self, request: pb.RemoveMemberRequest, context: Context
    ) -> pb.RemoveMemberResponse:
        """Take a principal's role away."""
        parent = ProjectName.parse(request.parent, "parent", wildcard=True)
        principal = codec.principal(request.principal, "principal")
        await self._roster.remove(parent, principal, caller=current_call().caller)
        return pb.RemoveMemberResponse()

    async def ListMembers(
        self, request: pb.ListMembersRequest, context: Context
    ) -> pb.ListMembersResponse:
        """Return a page of members."""
        parent = ProjectName.parse(request.parent, "parent", wildcard=True)
        page = await self._roster.list(parent, listing(request))
        members = [codec.member(member) for member in page.items]
        return pb.ListMembersResponse(members=members, next_page_token=page.next_token)
