"""`client.projects`: the boundaries of names, rights and deletion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.metadata.v1 import project_pb2
from modelyard.metadata.v1 import project_service_pb2 as service


class _Projects(Group):
    @unary
    def create(
        self,
        project_id: str,
        *,
        display_name: str = "",
        description: str = "",
        protected_aliases: Sequence[str] = (),
    ) -> Call[project_pb2.Project]:
        """Create a project; only who may deploy may move its protected aliases."""
        request = service.CreateProjectRequest(
            project_id=project_id,
            project=project_pb2.Project(
                display_name=display_name,
                description=description,
                protected_aliases=protected_aliases,
            ),
            request_id=new_request_id(),
        )
        return call(request, service.CreateProjectResponse, lambda r: r.project)

    @unary
    def get(self, project: Ref | None = None) -> Call[project_pb2.Project]:
        """Get a project; without a name, the default one."""
        request = service.GetProjectRequest(name=self._names.project(project))
        return call(request, service.GetProjectResponse, lambda r: r.project)

    @unary
    def update(
        self,
        project: Ref | None = None,
        *,
        display_name: str | None = None,
        description: str | None = None,
        protected_aliases: Sequence[str] | None = None,
        etag: str = "",
    ) -> Call[project_pb2.Project]:
        """Change what is given of a project; without a name, of the default one."""
        given = {
            "display_name": display_name,
            "description": description,
            "protected_aliases": protected_aliases,
        }
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        request = service.UpdateProjectRequest(
            project=project_pb2.Project(name=self._names.project(project), etag=etag, **values),
            update_mask=FieldMask(paths=list(values)),
            request_id=new_request_id(),
        )
        return call(request, service.UpdateProjectResponse, lambda r: r.project)

    @paged
    def list(self, *, show_deleted: bool = False) -> Pages[project_pb2.Project]:
        """List the projects in which one may read."""
        request = service.ListProjectsRequest(show_deleted=show_deleted)
        return pages(request, service.ListProjectsResponse, lambda r: r.projects)

    @unary
    def delete(self, project: Ref, *, etag: str = "") -> Call[project_pb2.Project]:
        """Delete a project whose models are all deleted; it can be restored until it is purged."""
        request = service.DeleteProjectRequest(name=self._names.project(project), etag=etag)
        return call(request, service.DeleteProjectResponse, lambda r: r.project)

    @unary
    def restore(self, project: Ref) -> Call[project_pb2.Project]:
        """Take back that a project was deleted."""
        request = service.RestoreProjectRequest(name=self._names.project(project))
        return call(request, service.RestoreProjectResponse, lambda r: r.project)

    @unary
    def purge(self, project: Ref) -> Call[None]:
        """Remove a deleted project for ever, with all in it; its id is never given out again."""
        request = service.PurgeProjectRequest(name=self._names.project(project))
        return call(request, service.PurgeProjectResponse, lambda _: None)


class Projects(_Projects, SyncGroup):
    """The boundaries of names, rights and deletion."""


class AsyncProjects(_Projects, AsyncGroup):
    """The boundaries of names, rights and deletion."""
