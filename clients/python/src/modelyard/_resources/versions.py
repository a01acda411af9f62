"""`client.versions`: immutable results, numbered by the server."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelyard._binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._calls import Call, Flow, Pages, call, new_request_id, pages
from modelyard._names import Names, Ref
from modelyard._resources.comparisons import compare
from modelyard.metadata.v1 import (
    comparison_service_pb2,
    lineage_service_pb2,
    version_pb2,
    version_use_pb2,
)
from modelyard.metadata.v1 import model_service_pb2 as service


class _Versions(Group):
    @unary
    def create(
        self,
        model: Ref,
        artifact: Ref,
        *,
        run: Ref | None = None,
        build: Ref | None = None,
        label: str = "",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        environment_digest: str = "",
        aliases: Sequence[str] = (),
    ) -> Call[version_pb2.Version]:
        """Register a version of a model; READY once its artifact's bytes are held."""
        version = version_pb2.Version(
            artifact=self._names.artifact(artifact),
            run="" if run is None else self._names.run(run),
            build="" if build is None else self._names.build(build),
            label=label,
            description=description,
            labels=labels,
            environment_digest=environment_digest,
        )
        request = service.CreateVersionRequest(
            parent=self._names.model(model),
            version=version,
            aliases=aliases,
            request_id=new_request_id(),
        )
        return call(request, service.CreateVersionResponse, lambda r: r.version)

    @unary
    def get(self, version: Ref) -> Call[version_pb2.Version]:
        """Get a version by any of its names: `churn/7`, `churn@production`, `churn` (newest)."""
        return resolve_version(self._names, version)

    @unary
    def resolve(self, target: Ref) -> Call[version_pb2.Version]:
        """Find the version that a version, an alias or a model (its newest) names."""
        return resolve_version(self._names, target)

    @paged
    def list(
        self, model: Ref | None = None, *, filter: str = "", order_by: str = ""
    ) -> Pages[version_pb2.Version]:
        """List the versions of a model, or of all models; newest first unless told otherwise."""
        request = service.ListVersionsRequest(
            parent=self._names.model(model), filter=filter, order_by=order_by
        )
        return pages(request, service.ListVersionsResponse, lambda r: r.versions)

    @paged
    def search(
        self, *, model: Ref | None = None, filter: str = "", order_by: str = ""
    ) -> Pages[version_pb2.Version]:
        """Find versions, such as those with `metrics.f1 > 0.7`."""
        request = service.ListVersionsRequest(
            parent=self._names.model(model), filter=filter, order_by=order_by
        )
        return pages(request, service.ListVersionsResponse, lambda r: r.versions)

    @flow
    def compare(
        self, versions: Sequence[Ref], *, code: bool = True
    ) -> Flow[comparison_service_pb2.CompareResponse]:
        """Put versions side by side; the others are held against the first."""
        return (yield from compare(self._names, versions, Names.target, code=code))

    @paged
    def uses(self, target: Ref, *, current_only: bool = False) -> Pages[version_use_pb2.VersionUse]:
        """List which deployments use a model or one of its versions, newest first."""
        text = self._names.target(target)
        request = lineage_service_pb2.ListVersionUsesRequest(parent=text, current_only=current_only)
        return pages(request, lineage_service_pb2.ListVersionUsesResponse, lambda r: r.version_uses)


class Versions(_Versions, SyncGroup):
    """Immutable results, numbered by the server."""


class AsyncVersions(_Versions, AsyncGroup):
    """Immutable results, numbered by the server."""


def resolve_version(names: Names, target: Ref) -> Call[version_pb2.Version]:
    """Describe the call that finds the version that is meant."""
    request = service.ResolveVersionRequest(name=names.target(target))
    return call(request, service.ResolveVersionResponse, lambda r: r.version)
