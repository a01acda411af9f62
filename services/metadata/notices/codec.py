"""From messages to notices, and who may give one."""

from __future__ import annotations

from modelyard.metadata.v1 import notice_service_pb2 as pb

from services.common.auth import Identity, Right, right_missing
from services.common.errors import invalid_field
from services.common.names import ExecutionName, VersionName, invalid_name
from services.metadata import limits
from services.metadata.notices.telling import KINDS, Notice


def notice(request: pb.PublishExecutionRequest, caller: Identity) -> Notice:
    """Read how an execution ended.

    Anyone may issue himself a delegation that names an automation; only the service that
    runs it renews it, and so vouches that the work is what it says.

    Raises:
        ServiceError: RIGHT_MISSING for a caller who is not that automation.
    """
    name = ExecutionName.parse(request.execution, "execution")
    if caller.delegated_resource != str(name.parent) or not caller.voucher:
        raise right_missing(Right.DELEGATE)
    if request.state not in KINDS:
        raise invalid_field("state", f"must be one of {', '.join(KINDS)}")
    if request.version:
        version = VersionName.parse(request.version, "version")
        if version.project != name.project:
            raise invalid_name("version", "must be of the execution's project")
    explanation = limits.lines(request.explanation, "explanation", limits.FAILURE_MESSAGE)
    return Notice(name, request.state, explanation, request.version, caller.principal)
