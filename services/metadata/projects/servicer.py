"""The gRPC edge of projects, tokens and delegations: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import project_service_pb2 as pb
from modelyard.metadata.v1 import project_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import ProjectName, TokenName, check_id
from services.common.rpc.pipeline import without_turn
from services.metadata.projects import codec
from services.metadata.projects.access import Access
from services.metadata.projects.directory import Directory
from services.metadata.projects.ending import Ending
from services.metadata.wire import listing, timestamp

Context = grpc.aio.ServicerContext[Any, Any]


class ProjectServicer(project_service_pb2_grpc.ProjectServiceServicer):
    """Serve `modelyard.metadata.v1.ProjectService`."""

    def __init__(self, *, directory: Directory, ending: Ending, access: Access) -> None:
        self._directory = directory
        self._ending = ending
        self._access = access

    async def CreateProject(
        self, request: pb.CreateProjectRequest, context: Context
    ) -> pb.CreateProjectResponse:
        """Create a project."""
        name = ProjectName(check_id(request.project_id, "project_id"))
        draft, key = codec.project_draft(request.project), current_call().key(request)
        actor = current_call().caller.principal
        project = await self._directory.create_project(name, draft, actor=actor, key=key)
        return pb.CreateProjectResponse(project=codec.project(project))

    async def GetProject(
        self, request: pb.GetProjectRequest, context: Context
    ) -> pb.GetProjectResponse:
        """Return a project."""
        project = await self._directory.get_project(ProjectName.parse(request.name))
        return pb.GetProjectResponse(project=codec.project(project))

    async def ListProjects(
        self, request: pb.ListProjectsRequest, context: Context
    ) -> pb.ListProjectsResponse:
        """Return a page of the projects the caller may read."""
        page = await self._directory.list_projects(current_call().caller, listing(request))
        return pb.ListProjectsResponse(
            projects=[codec.project(project) for project in page.items],
            next_page_token=page.next_token,
        )

    async def UpdateProject(
        self, request: pb.UpdateProjectRequest, context: Context
    ) -> pb.UpdateProjectResponse:
        """Change a project."""
        project = await self._directory.update_project(
            ProjectName.parse(request.project.name, "project.name"),
            codec.project_draft(request.project),
            paths=codec.update_paths(request),
            etag=request.project.etag,
            actor=current_call().caller.principal,
            key=current_call().key(request),
        )
        return pb.UpdateProjectResponse(project=codec.project(project))

    async def DeleteProject(
        self, request: pb.DeleteProjectRequest, context: Context
    ) -> pb.DeleteProjectResponse:
        """Delete a project."""
        name, actor = ProjectName.parse(request.name), current_call().caller.principal
        project = await self._ending.delete(name, etag=request.etag, actor=actor)
        return pb.DeleteProjectResponse(project=codec.project(project))

    async def RestoreProject(
        self, request: pb.RestoreProjectRequest, context: Context
    ) -> pb.RestoreProjectResponse:
        """Take back that a project was deleted."""
        name, actor = ProjectName.parse(request.name), current_call().caller.principal
        project = await self._ending.restore(name, actor=actor)
        return pb.RestoreProjectResponse(project=codec.project(project))

    async def PurgeProject(
        self, request: pb.PurgeProjectRequest, context: Context
    ) -> pb.PurgeProjectResponse:
        """Remove a deleted project for ever."""
        name, actor = ProjectName.parse(request.name), current_call().caller.principal
        await self._ending.purge(name, actor=actor)
        return pb.PurgeProjectResponse()

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        """Create a token and show its secret once."""
        draft, key = codec.token_draft(request.token), current_call().key(request)
        token, secret = await self._directory.create_token(draft, key=key)
        return pb.CreateTokenResponse(token=codec.token(token), secret=secret)

    async def ListTokens(
        self, request: pb.ListTokensRequest, context: Context
    ) -> pb.ListTokensResponse:
        """Return a page of tokens."""
        page = await self._directory.list_tokens(listing(request))
        return pb.ListTokensResponse(
            tokens=[codec.token(token) for token in page.items], next_page_token=page.next_token
        )

    async def RevokeToken(
        self, request: pb.RevokeTokenRequest, context: Context
    ) -> pb.RevokeTokenResponse:
        """Revoke a token."""
        token = await self._directory.revoke_token(TokenName.parse(request.name))
        return pb.RevokeTokenResponse(token=codec.token(token))

    @without_turn
    async def IntrospectCredential(
        self, request: pb.IntrospectCredentialRequest, context: Context
    ) -> pb.IntrospectCredentialResponse:
        """Say whom the call's credential stands for, read anew: the asker caches the answer."""
        return codec.credential(await self._access.examine(current_call().caller.credential))

    async def IssueDelegation(
        self, request: pb.IssueDelegationRequest, context: Context
    ) -> pb.IssueDelegationResponse:
        """Issue a delegation of the caller's rights."""
        rights = codec.rights_from(request.rights, "rights")
        issued = await self._access.issue(current_call().caller, request.resource, rights)
        return pb.IssueDelegationResponse(
            delegation=issued.credential, expire_time=timestamp(issued.expire_time)
        )

    async def RenewDelegation(
        self, request: pb.RenewDelegationRequest, context: Context
    ) -> pb.RenewDelegationResponse:
        """Renew a delegation."""
        rights = codec.rights_from(request.rights, "rights")
        voucher = current_call().caller.principal
        issued = await self._access.renew(request.delegation, rights, voucher=voucher)
        return pb.RenewDelegationResponse(
            delegation=issued.credential, expire_time=timestamp(issued.expire_time)
        )
