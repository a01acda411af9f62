"""`client.datasets`: datasets and their immutable versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from modelyard._names import Ref, project_of
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.metadata.v1 import dataset_difference_pb2, dataset_pb2
from modelyard.metadata.v1 import dataset_service_pb2 as service


class _Datasets(Group):
    @unary
    def create_version(
        self,
        dataset: Ref,
        digest: str,
        *,
        source: dataset_pb2.DatasetSource | None = None,
        schema: Sequence[dataset_pb2.Column] = (),
        row_count: int | None = None,
        artifact: Ref | None = None,
    ) -> Call[dataset_pb2.DatasetVersion]:
        """Register a dataset version, or get the one that has this digest."""
        version = dataset_pb2.DatasetVersion(
            digest=digest,
            source=source,
            schema=schema,
            row_count=row_count,
            artifact="" if artifact is None else self._names.artifact(artifact),
        )
        request = service.CreateDatasetVersionRequest(
            parent=self._names.dataset(dataset),
            dataset_version=version,
            request_id=new_request_id(),
        )
        return call(request, service.CreateDatasetVersionResponse, lambda r: r.dataset_version)

    @unary
    def register(
        self,
        dataset: Ref,
        data: Any,
        *,
        source: str = "",
        query: str = "",
        columns: Sequence[str] = (),
        filters: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
        artifact: Ref | None = None,
    ) -> Call[dataset_pb2.DatasetVersion]:
        """Register what data comes to: digest, schema and, with `modelyard[data]`, profile.

        The arguments are those of `modelyard.log_dataset`; of the data nothing else is sent.
        """
        from google.protobuf.json_format import ParseDict  # noqa: PLC0415 - rarely needed

        from modelyard.tracking import datasets  # noqa: PLC0415

        facts = datasets.describe(data)
        facts["source"] = datasets.source(source, query, columns, filters, start, end)
        facts["artifact"] = "" if artifact is None else self._names.artifact(artifact)
        request = service.CreateDatasetVersionRequest(
            parent=self._names.dataset(dataset),
            dataset_version=ParseDict(facts, dataset_pb2.DatasetVersion()),
            request_id=new_request_id(),
        )
        return call(request, service.CreateDatasetVersionResponse, lambda r: r.dataset_version)

    @unary
    def get_version(self, version: Ref) -> Call[dataset_pb2.DatasetVersion]:
        """Get a dataset version, `prices/3` in short."""
        request = service.GetDatasetVersionRequest(name=self._names.dataset_version(version))
        return call(request, service.GetDatasetVersionResponse, lambda r: r.dataset_version)

    @unary
    def compare(self, base: Ref, other: Ref) -> Call[dataset_difference_pb2.DatasetDifference]:
        """Say how `other` differs from `base`: schema, quality, and drift by column."""
        base_name = self._names.dataset_version(base)
        request = service.CompareDatasetsRequest(
            parent=project_of(base_name),
            base=base_name,
            other=self._names.dataset_version(other),
        )
        return call(request, service.CompareDatasetsResponse, lambda r: r.difference)

    @paged
    def list(self, *, project: Ref | None = None) -> Pages[dataset_pb2.Dataset]:
        """List a project's datasets."""
        request = service.ListDatasetsRequest(parent=self._names.project(project))
        return pages(request, service.ListDatasetsResponse, lambda r: r.datasets)

    @paged
    def versions(self, dataset: Ref) -> Pages[dataset_pb2.DatasetVersion]:
        """List a dataset's versions, newest first."""
        request = service.ListDatasetVersionsRequest(parent=self._names.dataset(dataset))
        return pages(request, service.ListDatasetVersionsResponse, lambda r: r.dataset_versions)


class Datasets(_Datasets, SyncGroup):
    """Datasets and their immutable versions."""


class AsyncDatasets(_Datasets, AsyncGroup):
    """Datasets and their immutable versions."""
