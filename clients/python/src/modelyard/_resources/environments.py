"""`client.environments`: where models go live, and the gates in front."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.deployer.v1 import environment_pb2
from modelyard.deployer.v1 import environment_service_pb2 as service


class _Environments(Group):
    @unary
    def create(
        self,
        environment_id: str,
        *,
        description: str = "",
        gates: Sequence[environment_pb2.Gate] = (),
        external: bool = False,
        project: Ref | None = None,
    ) -> Call[environment_pb2.Environment]:
        """Create an environment; an `external` one is served by a controller that is not ours."""
        pb = environment_pb2
        target = pb.TARGET_KIND_EXTERNAL if external else pb.TARGET_KIND_PROCESS
        request = service.CreateEnvironmentRequest(
            parent=self._names.project(project),
            environment_id=environment_id,
            environment=pb.Environment(description=description, gates=gates, target=target),
            request_id=new_request_id(),
        )
        return call(request, service.CreateEnvironmentResponse, lambda r: r.environment)

    @unary
    def get(self, environment: Ref) -> Call[environment_pb2.Environment]:
        """Get an environment."""
        request = service.GetEnvironmentRequest(name=self._names.environment(environment))
        return call(request, service.GetEnvironmentResponse, lambda r: r.environment)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[environment_pb2.Environment]:
        """List a project's environments."""
        request = service.ListEnvironmentsRequest(parent=self._names.project(project))
        return pages(request, service.ListEnvironmentsResponse, lambda r: r.environments)

    @unary
    def update(
        self,
        environment: Ref,
        *,
        description: str | None = None,
        gates: Sequence[environment_pb2.Gate] | None = None,
        etag: str = "",
    ) -> Call[environment_pb2.Environment]:
        """Change what is given; with an etag only if nobody else did since."""
        given = {"description": description, "gates": gates}
        changed = environment_pb2.Environment(
            name=self._names.environment(environment),
            description=description or "",
            gates=gates,
            etag=etag,
        )
        request = service.UpdateEnvironmentRequest(
            environment=changed,
            update_mask=FieldMask(paths=[key for key, value in given.items() if value is not None]),
            request_id=new_request_id(),
        )
        return call(request, service.UpdateEnvironmentResponse, lambda r: r.environment)

    @unary
    def approve(
        self, environment: Ref, version: Ref, *, reason: str = ""
    ) -> Call[environment_pb2.Approval]:
        """Approve a version for an environment, as oneself."""
        request = service.ApproveVersionRequest(
            environment=self._names.environment(environment),
            version=self._names.target(version),
            reason=reason,
            request_id=new_request_id(),
        )
        return call(request, service.ApproveVersionResponse, lambda r: r.approval)

    @unary
    def withdraw(self, environment: Ref, version: Ref) -> Call[None]:
        """Take one's own approval of a version back; without one nothing changes."""
        request = service.WithdrawApprovalRequest(
            environment=self._names.environment(environment),
            version=self._names.target(version),
            request_id=new_request_id(),
        )
        return call(request, service.WithdrawApprovalResponse, lambda _: None)

    @unary
    def approvals(self, environment: Ref, version: Ref) -> Call[Sequence[environment_pb2.Approval]]:
        """List the approvals of a version for an environment, oldest first."""
        request = service.ListApprovalsRequest(
            environment=self._names.environment(environment), version=self._names.target(version)
        )
        return call(request, service.ListApprovalsResponse, lambda r: list(r.approvals))


class Environments(_Environments, SyncGroup):
    """Where models go live, and the gates in front."""


class AsyncEnvironments(_Environments, AsyncGroup):
    """Where models go live, and the gates in front."""
