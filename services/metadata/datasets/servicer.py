"""The gRPC edge of datasets: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import dataset_service_pb2 as pb
from modelyard.metadata.v1 import dataset_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import DatasetName, DatasetVersionName, ProjectName
from services.metadata.datasets import codec
from services.metadata.datasets.catalogue import Catalogue
from services.metadata.wire import listing

Context = grpc.aio.ServicerContext[Any, Any]


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Serve `modelyard.metadata.v1.DatasetService`."""

    def __init__(self, *, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    async def CreateDatasetVersion(
        self, request: pb.CreateDatasetVersionRequest, context: Context
    ) -> pb.CreateDatasetVersionResponse:
        """Register a dataset version."""
        call, parent = current_call(), DatasetName.parse(request.parent, "parent")
        draft = codec.version_draft(request.dataset_version, parent)
        version = await self._catalogue.create_version(
            parent,
            draft,
            creator=call.caller.principal,
            credential=call.caller.credential,
            key=call.key(request),
        )
        return pb.CreateDatasetVersionResponse(dataset_version=codec.version(version))

    async def GetDatasetVersion(
        self, request: pb.GetDatasetVersionRequest, context: Context
    ) -> pb.GetDatasetVersionResponse:
        """Return a dataset version."""
        version = await self._catalogue.get_version(DatasetVersionName.parse(request.name))
        return pb.GetDatasetVersionResponse(dataset_version=codec.version(version))

    async def ListDatasets(
        self, request: pb.ListDatasetsRequest, context: Context
    ) -> pb.ListDatasetsResponse:
        """Return a page of datasets."""
        parent = ProjectName.parse(request.parent, "parent")
        page = await self._catalogue.list_datasets(parent, listing(request))
        return pb.ListDatasetsResponse(
            datasets=[codec.dataset(dataset) for dataset in page.items],
            next_page_token=page.next_token,
        )

    async def ListDatasetVersions(
        self, request: pb.ListDatasetVersionsRequest, context: Context
    ) -> pb.ListDatasetVersionsResponse:
        """Return a page of a dataset's versions."""
        parent = DatasetName.parse(request.parent, "parent")
        page = await self._catalogue.list_versions(parent, listing(request))
        return pb.ListDatasetVersionsResponse(
            dataset_versions=[codec.version(version) for version in page.items],
            next_page_token=page.next_token,
        )

    async def CompareDatasets(
        self, request: pb.CompareDatasetsRequest, context: Context
    ) -> pb.CompareDatasetsResponse:
        """Say how one dataset version differs from another."""
        found = await self._catalogue.compare(
            ProjectName.parse(request.parent, "parent"),
            DatasetVersionName.parse(request.base, "base"),
            DatasetVersionName.parse(request.other, "other"),
        )
        return pb.CompareDatasetsResponse(difference=codec.difference(found))
