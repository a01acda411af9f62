"""EnvironmentService's edge: check, one call, encode."""

from __future__ import annotations

from typing import Any

from modelyard.deployer.v1 import environment_service_pb2 as pb
from modelyard.deployer.v1 import environment_service_pb2_grpc

from services.common.auth import current_call
from services.common.errors import invalid_field
from services.common.listing.pagination import decode_token, encode_token, page_size
from services.common.names import EnvironmentName, ProjectName, check_id
from services.deployer import codec
from services.deployer.environments import gate_codec
from services.deployer.environments.approvals import Approvals
from services.deployer.environments.environments import EnvironmentChange, Environments

PATHS = frozenset({"description", "gates"})
OUTPUT_ONLY = frozenset({"name", "address", "etag", "create_time", "update_time", "target"})


class EnvironmentServicer(environment_service_pb2_grpc.EnvironmentServiceServicer):
    """Serves EnvironmentService."""

    def __init__(self, environments: Environments, approvals: Approvals) -> None:
        self._environments = environments
        self._approvals = approvals

    async def CreateEnvironment(  # noqa: D102 - documented in the proto, as each RPC
        self, request: pb.CreateEnvironmentRequest, context: Any
    ) -> pb.CreateEnvironmentResponse:
        project = ProjectName.parse(request.parent, "parent").project
        name = EnvironmentName(project, check_id(request.environment_id, "environment_id"))
        environment = request.environment
        call = current_call()
        created = await self._environments.create(
            name,
            description=codec.check_description(environment.description, "environment.description"),
            gates=gate_codec.decode_gates(environment.gates, "environment.gates"),
            target=codec.decode_target(environment.target),
            credential=call.caller.credential,
            key=call.key(request),
        )
        return pb.CreateEnvironmentResponse(environment=codec.encode_environment(created))

    async def GetEnvironment(  # noqa: D102
        self, request: pb.GetEnvironmentRequest, context: Any
    ) -> pb.GetEnvironmentResponse:
        found = await self._environments.get(EnvironmentName.parse(request.name))
        return pb.GetEnvironmentResponse(environment=codec.encode_environment(found))

    async def ListEnvironments(  # noqa: D102
        self, request: pb.ListEnvironmentsRequest, context: Any
    ) -> pb.ListEnvironmentsResponse:
        parent, limit = ProjectName.parse(request.parent, "parent"), page_size(request.page_size)
        query = f"environments {parent}"
        (after,) = decode_token(request.page_token, query, tuple[str]) or ("",)
        found = await self._environments.list_page(parent.project, after=after, limit=limit + 1)
        page = found[:limit]
        more = encode_token(query, (str(page[-1].name),)) if len(found) > limit else ""
        environments = [codec.encode_environment(environment) for environment in page]
        return pb.ListEnvironmentsResponse(environments=environments, next_page_token=more)

    async def UpdateEnvironment(  # noqa: D102
        self, request: pb.UpdateEnvironmentRequest, context: Any
    ) -> pb.UpdateEnvironmentResponse:
        name = EnvironmentName.parse(request.environment.name, "environment.name")
        key = current_call().key(request)
        updated = await self._environments.update(name, _change(request), key=key)
        return pb.UpdateEnvironmentResponse(environment=codec.encode_environment(updated))

    async def ApproveVersion(  # noqa: D102
        self, request: pb.ApproveVersionRequest, context: Any
    ) -> pb.ApproveVersionResponse:
        call = current_call()
        approval = await self._approvals.approve(
            EnvironmentName.parse(request.environment, "environment"),
            codec.check_version(request.version),
            principal=call.caller.principal,
            reason=codec.check_reason(request.reason),
            credential=call.caller.credential,
            key=call.key(request),
        )
        return pb.ApproveVersionResponse(approval=gate_codec.encode_approval(approval))

    async def WithdrawApproval(  # noqa: D102
        self, request: pb.WithdrawApprovalRequest, context: Any
    ) -> pb.WithdrawApprovalResponse:
        call = current_call()
        await self._approvals.withdraw(
            EnvironmentName.parse(request.environment, "environment"),
            codec.check_version(request.version),
            principal=call.caller.principal,
            credential=call.caller.credential,
            key=call.key(request),
        )
        return pb.WithdrawApprovalResponse()

    async def ListApprovals(  # noqa: D102
        self, request: pb.ListApprovalsRequest, context: Any
    ) -> pb.ListApprovalsResponse:
        name = EnvironmentName.parse(request.environment, "environment")
        version, credential = codec.check_version(request.version), current_call().caller.credential
        found = await self._approvals.list_all(name, version, credential=credential)
        return pb.ListApprovalsResponse(approvals=[gate_codec.encode_approval(a) for a in found])


def _change(request: pb.UpdateEnvironmentRequest) -> EnvironmentChange:
    """Read which values are to change: those of the mask, or all that are set."""
    environment, paths = request.environment, set(request.update_mask.paths)
    if unknown := sorted(paths - PATHS - OUTPUT_ONLY):
        raise invalid_field("update_mask", f"names {unknown[0][:100]}, which cannot be changed")
    if not request.update_mask.paths:
        paths = {path for path in PATHS if getattr(environment, path)}
    description = codec.check_description(environment.description, "environment.description")
    gates = gate_codec.decode_gates(environment.gates, "environment.gates")
    return EnvironmentChange(
        description=description if "description" in paths else None,
        gates=gates if "gates" in paths else None,
        etag=environment.etag,
    )
