"""`client.versions`: immutable results, numbered by the server."""

# ruff: noqa: A002  # `filter` and `license` are what the API calls them

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._names import Names, Ref
from modelyard._resources.comparisons import compare
from modelyard._resources.evidence import (
    SIGNED_FILE,
    TESTS_FILE,
    read_evidence,
    read_provenance,
    read_schema,
)
from modelyard._resources.materials import bill_of_materials
from modelyard._resources.resolving import resolve_version
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, ask, call, new_request_id, pages
from modelyard.metadata.v1 import (
    comparison_service_pb2,
    evaluation_pb2,
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
        card: str = "",
        license: str = "",
        image: str = "",
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
            card=card,
            license=license,
            image=image,
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

    @flow
    def update(
        self,
        version: Ref,
        *,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        card: str | None = None,
        license: str | None = None,
        image: str | None = None,
        etag: str = "",
    ) -> Flow[version_pb2.Version]:
        """Change what is given of a version; all else of it is immutable."""
        given = {
            "description": description,
            "labels": labels,
            "card": card,
            "license": license,
            "image": image,
        }
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        name = yield from self._name_of(version)
        request = service.UpdateVersionRequest(
            version=version_pb2.Version(name=name, etag=etag, **values),
            update_mask=FieldMask(paths=list(values)),
            request_id=new_request_id(),
        )
        return (yield from ask(call(request, service.UpdateVersionResponse, lambda r: r.version)))

    @flow
    def archive(self, version: Ref, *, etag: str = "") -> Flow[version_pb2.Version]:
        """Archive a version that nothing needs: it stays, but can no longer be chosen."""
        request = service.ArchiveVersionRequest(name=(yield from self._name_of(version)), etag=etag)
        return (yield from ask(call(request, service.ArchiveVersionResponse, lambda r: r.version)))

    @flow
    def unarchive(self, version: Ref) -> Flow[version_pb2.Version]:
        """Take back that a version was archived."""
        request = service.UnarchiveVersionRequest(name=(yield from self._name_of(version)))
        return (
            yield from ask(call(request, service.UnarchiveVersionResponse, lambda r: r.version))
        )

    @flow
    def delete(self, version: Ref, *, etag: str = "") -> Flow[version_pb2.Version]:
        """Delete a version that nothing needs; it can be restored until it is purged."""
        request = service.DeleteVersionRequest(name=(yield from self._name_of(version)), etag=etag)
        return (yield from ask(call(request, service.DeleteVersionResponse, lambda r: r.version)))

    @flow
    def restore(self, version: Ref) -> Flow[version_pb2.Version]:
        """Take back that a version was deleted."""
        request = service.RestoreVersionRequest(name=(yield from self._name_of(version)))
        return (yield from ask(call(request, service.RestoreVersionResponse, lambda r: r.version)))

    @flow
    def purge(self, version: Ref) -> Flow[None]:
        """Remove a deleted version for ever and give its bytes back."""
        request = service.PurgeVersionRequest(name=(yield from self._name_of(version)))
        yield from ask(call(request, service.PurgeVersionResponse, lambda _: None))

    @flow
    def evaluate(
        self,
        version: Ref,
        metrics: Mapping[str, float],
        *,
        dataset_version: str = "",
        notes: str = "",
    ) -> Flow[evaluation_pb2.Evaluation]:
        """Record what was measured of a version after the fact; it never changes."""
        request = service.CreateEvaluationRequest(
            parent=(yield from self._name_of(version)),
            evaluation=evaluation_pb2.Evaluation(
                metrics=metrics, dataset_version=dataset_version, notes=notes
            ),
            request_id=new_request_id(),
        )
        return (
            yield from ask(call(request, service.CreateEvaluationResponse, lambda r: r.evaluation))
        )

    @paged
    def evaluations(self, version: Ref) -> Pages[evaluation_pb2.Evaluation]:
        """List a version's evaluations, newest first."""
        request = service.ListEvaluationsRequest(parent=self._names.target(version))
        return pages(request, service.ListEvaluationsResponse, lambda r: r.evaluations)

    @paged
    def list(
        self,
        model: Ref | None = None,
        *,
        filter: str = "",
        order_by: str = "",
        show_deleted: bool = False,
    ) -> Pages[version_pb2.Version]:
        """List the versions of a model, or of all models; newest first unless told otherwise."""
        request = service.ListVersionsRequest(
            parent=self._names.model(model),
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
        )
        return pages(request, service.ListVersionsResponse, lambda r: r.versions)

    @paged
    def search(
        self,
        *,
        model: Ref | None = None,
        filter: str = "",
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> Pages[version_pb2.Version]:
        """Find versions, such as those with `metrics.f1 > 0.7`.

        Of the first few, `page_size` says how many are fetched at once.
        """
        request = service.ListVersionsRequest(
            parent=self._names.model(model),
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
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

    @flow
    def bom(self, version: Ref) -> Flow[str]:
        """Return what a version is made of, as CycloneDX 1.6 in JSON (an ML-BOM)."""
        return (yield from bill_of_materials(self._names, version))

    @flow
    def schema(self, version: Ref) -> Flow[dict[str, Any] | None]:
        """Return what the model takes and answers, or None where no example told.

        `inputs` and `outputs` are lists of `name`, `datatype` (of the Open Inference Protocol, such
        as `FP64`) and `shape`, in which -1 is any size: the number of rows.
        """
        return (yield from read_schema(self._names, version))

    @flow
    def provenance(self, version: Ref, *, key: str | Path | None = None) -> Flow[str]:
        """Return how a version was built: an in-toto statement with SLSA provenance v1, in JSON.

        With a public key in a PEM file: only what the worker signed with its private key, of this
        version's artifact; else `FailedPreconditionError`: SIGNATURE_MISSING or SIGNATURE_INVALID.
        Needs `modelyard[signing]`.
        """
        return (yield from read_provenance(self._names, version, key)).decode()

    @flow
    def signed_provenance(self, version: Ref) -> Flow[bytes]:
        """Return the signed statement of how a version was built: a DSSE envelope, in JSON."""
        return (yield from read_evidence(self._names, version, SIGNED_FILE))

    @flow
    def test_report(self, version: Ref) -> Flow[str]:
        """Return what the source's own tests said when the version was built, as JUnit XML."""
        return (yield from read_evidence(self._names, version, TESTS_FILE)).decode()

    def _name_of(self, version: Ref) -> Flow[str]:
        """Return a version's full name; a short form is resolved first, a full one is not."""
        target = self._names.target(version)
        if "/versions/" in target:
            return target
        return (yield from ask(resolve_version(self._names, version))).name


class Versions(_Versions, SyncGroup):
    """Immutable results, numbered by the server."""


class AsyncVersions(_Versions, AsyncGroup):
    """Immutable results, numbered by the server."""
