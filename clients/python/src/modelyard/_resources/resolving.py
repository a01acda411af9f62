"""Finding the version that any of its names means."""

from __future__ import annotations

from modelyard._names import Names, Ref
from modelyard._transport.calls import Call, call
from modelyard.metadata.v1 import model_service_pb2 as service
from modelyard.metadata.v1 import version_pb2


def resolve_version(names: Names, target: Ref) -> Call[version_pb2.Version]:
    """Describe the call that finds the version that is meant."""
    model, label = names.labelled(target)
    name = names.target(target) if not label else names.model(model)
    request = service.ResolveVersionRequest(name=name, label=label)
    return call(request, service.ResolveVersionResponse, lambda r: r.version)
