"""Between messages and domain: uses of versions, and lineage."""

from __future__ import annotations

from modelyard.metadata.v1 import lineage_service_pb2, version_use_pb2

from services.common.errors import invalid_field
from services.common.names import DatasetName, DeploymentName, ModelName, VersionName, invalid_name
from services.metadata.lineage.domain import Direction, Lineage, VersionUse, kind_of
from services.metadata.wire import stamp

NODES = 1_000
NODES_MAXIMUM = 10_000


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


def start(text: str) -> ModelName | DatasetName | str:
    """Return where a graph begins: a model, a dataset, or a node's name."""
    for kind in (ModelName, DatasetName):
        if kind.expression.fullmatch(text):
            return kind.parse(text)
    if kind_of(text) is None:
        raise invalid_name("name", "must name a dataset, a run, a build, a model or what is of one")
    return text


def graph(found: Lineage) -> lineage_service_pb2.GetLineageResponse:
    """Return a graph's message."""
    message = lineage_service_pb2.GetLineageResponse(truncated=found.truncated)
    for node in found.nodes:
        added = message.nodes.add(name=node.name, title=node.title, state=node.state)
        added.kind = lineage_service_pb2.LineageKind.Value(f"LINEAGE_KIND_{node.kind}")
        stamp(added.create_time, node.create_time)
    for edge in found.edges:
        message.edges.add(source=edge.source, target=edge.target, relation=edge.relation)
    return message


def direction(request: lineage_service_pb2.GetLineageRequest) -> Direction:
    """Return which way to look."""
    known = lineage_service_pb2.LineageDirection
    if request.direction not in known.values():
        raise invalid_field("direction", "must be a known direction")
    name = known.Name(request.direction)
    return Direction(name.removeprefix("LINEAGE_DIRECTION_"))


def max_nodes(request: lineage_service_pb2.GetLineageRequest) -> int:
    """Return how many nodes are wanted."""
    if request.max_nodes < 0:
        raise invalid_field("max_nodes", "must not be negative")
    return min(request.max_nodes or NODES, NODES_MAXIMUM)
