"""Building a version anew from its record, and holding what came of it against the version."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard._names import Names, Ref, project_of
from modelyard._resources.evidence import built
from modelyard._resources.resolving import resolve_version
from modelyard._transfers import pull as _pull
from modelyard._transport.calls import Flow, ask, call, new_request_id
from modelyard.artifact.v1 import artifact_pb2
from modelyard.builder.v1 import build_pb2
from modelyard.builder.v1 import build_service_pb2 as service
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import run_pb2, run_service_pb2
from modelyard.reproduction import Reproduction, pair_digests, pair_metrics


def order(names: Names, target: Ref, *, pool: str) -> Flow[build_pb2.Build]:
    """Order the build that repeats a version's."""
    version, first = yield from built(names, target)
    spec = build_pb2.BuildSpec()
    spec.CopyFrom(first.spec)
    for field in ("git", "aliases", "group", "requirements"):
        spec.ClearField(field)  # the source is what was fetched, the environment is the version's
    spec.source, spec.reproduces, spec.skip_image = first.source, version.name, True
    spec.origin.CopyFrom(first.origin)
    spec.origin.diff = first.spec.origin.diff
    spec.pool = pool or spec.pool
    request = service.CreateBuildRequest(
        parent=project_of(first.name),
        build=build_pb2.Build(model=first.model, spec=spec),
        request_id=new_request_id(),
    )
    return (yield from ask(call(request, service.CreateBuildResponse, lambda r: r.build)))


def compare(names: Names, build: build_pb2.Build, tolerance: float) -> Flow[Reproduction]:
    """Hold a build that ended against the version that it repeats."""
    if not build.spec.reproduces:
        message = f"{build.name} repeats no version"
        raise InvalidArgumentError(message, reason="INVALID_FIELD")
    version = yield from ask(resolve_version(names, build.spec.reproduces))
    before = yield from _pull.list_files(version.artifact)
    after: Sequence[artifact_pb2.File] = ()
    if build.artifact:
        after = yield from _pull.list_files(build.artifact)
    run = run_pb2.Run()
    if build.run:
        request = run_service_pb2.GetRunRequest(name=build.run)
        run = yield from ask(call(request, run_service_pb2.GetRunResponse, lambda r: r.run))
    metrics = pair_metrics(version.metrics, run.metrics, tolerance)
    return Reproduction(version, build, metrics, pair_digests(before, after))
