"""The gRPC edge of models, versions and aliases: check, one call, encode."""

from __future__ import annotations

from typing import Any

import grpc
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import model_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import AliasName, ModelName, ProjectName, VersionName, check_id
from services.common.peers import remaining
from services.metadata import limits
from services.metadata.models import codec
from services.metadata.models.pointing import Pointing
from services.metadata.models.registering import Registering
from services.metadata.models.registry import Registry
from services.metadata.wire import listing, moment

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Serve `modelyard.metadata.v1.ModelService`."""

    def __init__(self, *, registry: Registry, registering: Registering, pointing: Pointing) -> None:
        self._registry = registry
        self._registering = registering
        self._pointing = pointing

    async def CreateModel(
        self, request: pb.CreateModelRequest, context: Context
    ) -> pb.CreateModelResponse:
        """Create a model."""
        project = ProjectName.parse(request.parent, "parent").project
        name = ModelName(project, check_id(request.model_id, "model_id"))
        draft, key = codec.model_draft(request.model), current_call().key(request)
        model = await self._registry.create_model(name, draft, key=key)
        return pb.CreateModelResponse(model=codec.model(model))

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return a model."""
        model = await self._registry.get_model(ModelName.parse(request.name))
        return pb.GetModelResponse(model=codec.model(model))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Return a page of models."""
        parent = ProjectName.parse(request.parent, "parent")
        page = await self._registry.list_models(parent, listing(request))
        return pb.ListModelsResponse(
            models=[codec.model(model) for model in page.items], next_page_token=page.next_token
        )

    async def UpdateModel(
        self, request: pb.UpdateModelRequest, context: Context
    ) -> pb.UpdateModelResponse:
        """Change a model."""
        model = await self._registry.update_model(
            ModelName.parse(request.model.name, "model.name"),
            codec.model_draft(request.model),
            paths=codec.update_paths(request),
            etag=request.model.etag,
            key=current_call().key(request),
        )
        return pb.UpdateModelResponse(model=codec.model(model))

    async def CreateVersion(
        self, request: pb.CreateVersionRequest, context: Context
    ) -> pb.CreateVersionResponse:
        """Register a version."""
        parent, caller = ModelName.parse(request.parent, "parent"), current_call().caller
        version = await self._registering.create(
            parent,
            codec.version_draft(request, parent, caller),
            creator=caller.principal,
            credential=caller.credential,
            seconds=remaining(),
            key=current_call().key(request),
        )
        return pb.CreateVersionResponse(version=codec.version(version))

    async def GetVersion(
        self, request: pb.GetVersionRequest, context: Context
    ) -> pb.GetVersionResponse:
        """Return a version."""
        version = await self._registry.get_version(VersionName.parse(request.name))
        return pb.GetVersionResponse(version=codec.version(version))

    async def ResolveVersion(
        self, request: pb.ResolveVersionRequest, context: Context
    ) -> pb.ResolveVersionResponse:
        """Return the version that a short form names."""
        version = await self._registry.resolve(codec.short_name(request.name))
        return pb.ResolveVersionResponse(version=codec.version(version))

    async def ListVersions(
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListVersionsResponse:
        """Return a page of versions."""
        parent = ModelName.parse(request.parent, "parent", wildcard=True)
        page = await self._registry.list_versions(parent, listing(request))
        return pb.ListVersionsResponse(
            versions=[codec.version(version) for version in page.items],
            next_page_token=page.next_token,
        )

    async def UpdateAlias(
        self, request: pb.UpdateAliasRequest, context: Context
    ) -> pb.UpdateAliasResponse:
        """Point an alias to a version."""
        call = current_call()
        move = codec.alias_move(request, call.caller.principal)
        alias = await self._pointing.move(move, key=call.key(request))
        return pb.UpdateAliasResponse(alias=codec.alias(alias))

    async def GetAlias(self, request: pb.GetAliasRequest, context: Context) -> pb.GetAliasResponse:
        """Return an alias, as it is or was."""
        as_of = moment(request.as_of, "as_of") if request.HasField("as_of") else None
        alias = await self._pointing.get(AliasName.parse(request.name), as_of=as_of)
        return pb.GetAliasResponse(alias=codec.alias(alias))

    async def ListAliases(
        self, request: pb.ListAliasesRequest, context: Context
    ) -> pb.ListAliasesResponse:
        """Return a page of aliases."""
        parent = ModelName.parse(request.parent, "parent")
        page = await self._pointing.list_aliases(parent, listing(request))
        return pb.ListAliasesResponse(
            aliases=[codec.alias(alias) for alias in page.items], next_page_token=page.next_token
        )

    async def DeleteAlias(
        self, request: pb.DeleteAliasRequest, context: Context
    ) -> pb.DeleteAliasResponse:
        """Delete an alias."""
        await self._pointing.delete(
            AliasName.parse(request.name),
            actor=current_call().caller.principal,
            reason=limits.lines(request.reason, "reason", limits.REASON),
            etag=request.etag,
        )
        return pb.DeleteAliasResponse()

    async def ListAliasChanges(
        self, request: pb.ListAliasChangesRequest, context: Context
    ) -> pb.ListAliasChangesResponse:
        """Return a page of an alias's history."""
        parent = AliasName.parse(request.parent, "parent", wildcard=True)
        page = await self._pointing.list_changes(parent, listing(request))
        return pb.ListAliasChangesResponse(
            alias_changes=[codec.alias_change(change) for change in page.items],
            next_page_token=page.next_token,
        )
