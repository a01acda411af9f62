"""`client.projects`: the boundaries of names, rights and deletion."""

from __future__ import annotations

from modelyard._binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._calls import Call, Pages, call, new_request_id, pages
from modelyard._names import Ref
from modelyard.metadata.v1 import project_pb2
from modelyard.metadata.v1 import project_service_pb2 as service


class _Projects(Group):
    @unary
    def create(
        self, project_id: str, *, display_name: str = "", description: str = ""
    ) -> Call[project_pb2.Project]:
        """Create a project."""
        request = service.CreateProjectRequest(
            project_id=project_id,
            project=project_pb2.Project(display_name=display_name, description=description),
            request_id=new_request_id(),
        )
        return call(request, service.CreateProjectResponse, lambda r: r.project)

    @unary
    def get(self, project: Ref | None = None) -> Call[project_pb2.Project]:
        """Get a project; without a name, the default one."""
        request = service.GetProjectRequest(name=self._names.project(project))
        return call(request, service.GetProjectResponse, lambda r: r.project)

    @paged
    def list(self) -> Pages[project_pb2.Project]:
        """List the projects in which one may read."""
        return pages(
            service.ListProjectsRequest(), service.ListProjectsResponse, lambda r: r.projects
        )


class Projects(_Projects, SyncGroup):
    """The boundaries of names, rights and deletion."""


class AsyncProjects(_Projects, AsyncGroup):
    """The boundaries of names, rights and deletion."""
