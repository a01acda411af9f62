"""Between messages and domain: uses of versions."""

from __future__ import annotations

from modelyard.metadata.v1 import version_use_pb2

from services.common.errors import invalid_field
from services.common.names import DeploymentName, ModelName, VersionName, invalid_name
from services.metadata.lineage.domain import VersionUse
from services.metadata.wire import stamp


def use_from(message: version_use_pb2.VersionUse) -> tuple[VersionName, DeploymentName]:
    """Return which deployment uses which version."""
    version = VersionName.parse(message.version, "version_use.version")
    user = DeploymentName.parse(message.user, "version_use.user")
    if user.project != version.project:
        raise invalid_field("version_use.user", "must be of the version's project")
    return version, user


def use(found: VersionUse) -> version_use_pb2.VersionUse:
    """Return a use's message."""
    message = version_use_pb2.VersionUse(version=str(found.version), user=str(found.user))
    stamp(message.start_time, found.start_time)
    stamp(message.end_time, found.end_time)
    return message


def used(text: str) -> ModelName | VersionName:
    """Return the model or version whose uses are wanted."""
    for kind in (VersionName, ModelName):
        if kind.expression.fullmatch(text):
            return kind.parse(text, "parent")
    raise invalid_name("parent", "must be the name of a model or a version")
