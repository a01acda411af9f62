"""The gRPC edge of models, versions and aliases: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from modelyard.metadata.v1 import model_service_pb2 as pb
from modelyard.metadata.v1 import model_service_pb2_grpc

from services.common.auth import Right, current_call
from services.common.errors import invalid_field
from services.common.names import AliasName, ModelName, ProjectName, VersionName, check_id
from services.common.rpc.draining import endless
from services.common.rpc.peers import remaining
from services.metadata import limits
from services.metadata.models import codec
from services.metadata.models.evaluating import Evaluating
from services.metadata.models.lifecycle import Lifecycle
from services.metadata.models.pointing import Pointing
from services.metadata.models.registering import Registering
from services.metadata.models.registry import Registry
from services.metadata.models.removing import Removing
from services.metadata.models.searching import VersionSearch
from services.metadata.watching import codec as watching_codec
from services.metadata.watching.watch import Watch
from services.metadata.wire import listing, moment

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Serve `modelyard.metadata.v1.ModelService`."""

    def __init__(
        self,
        *,
        registry: Registry,
        removing: Removing,
        search: VersionSearch,
        registering: Registering,
        lifecycle: Lifecycle,
        evaluating: Evaluating,
        pointing: Pointing,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._registry = registry
        self._removing = removing
        self._search = search
        self._registering = registering
        self._lifecycle = lifecycle
        self._evaluating = evaluating
        self._pointing = pointing

    async def CreateModel(
        self, request: pb.CreateModelRequest, context: Context
    ) -> pb.CreateModelResponse:
        """Create a model."""
        project = ProjectName.parse(request.parent, "parent").project
        name = ModelName(project, check_id(request.model_id, "model_id"))
        draft, key = codec.model_draft(request.model), current_call().key(request)
        actor = current_call().caller.principal
        model = await self._registry.create_model(name, draft, actor=actor, key=key)
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
            models=[codec.model(model) for model in page.items],
            next_page_token=page.next_token,
            watch_cursor=page.watch_cursor,
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
            actor=current_call().caller.principal,
            key=current_call().key(request),
        )
        return pb.UpdateModelResponse(model=codec.model(model))

    async def DeleteModel(
        self, request: pb.DeleteModelRequest, context: Context
    ) -> pb.DeleteModelResponse:
        """Delete a model."""
        name, actor = ModelName.parse(request.name), current_call().caller.principal
        model = await self._removing.delete(name, etag=request.etag, actor=actor)
        return pb.DeleteModelResponse(model=codec.model(model))

    async def RestoreModel(
        self, request: pb.RestoreModelRequest, context: Context
    ) -> pb.RestoreModelResponse:
        """Take back that a model was deleted."""
        name, actor = ModelName.parse(request.name), current_call().caller.principal
        model = await self._removing.restore(name, actor=actor)
        return pb.RestoreModelResponse(model=codec.model(model))

    async def PurgeModel(
        self, request: pb.PurgeModelRequest, context: Context
    ) -> pb.PurgeModelResponse:
        """Remove a deleted model for ever."""
        name, actor = ModelName.parse(request.name), current_call().caller.principal
        await self._removing.purge(name, actor=actor)
        return pb.PurgeModelResponse()

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

    async def ResolveVersion(  # type: ignore[override]  # what is kept goes out as it is
        self, request: pb.ResolveVersionRequest, context: Context
    ) -> bytes:
        """Return the version that a short form names."""
        name, label = codec.short_name(request.name), request.label
        if label and not isinstance(name, ModelName):
            raise invalid_field("label", "goes with the name of a model")
        if label and isinstance(name, ModelName):
            return await self._registry.find_labelled(name, label)
        return await self._registry.resolve(name)

    async def ListVersions(
        self, request: pb.ListVersionsRequest, context: Context
    ) -> pb.ListVersionsResponse:
        """Return a page of versions."""
        parent = ModelName.parse(request.parent, "parent", wildcard=True)
        page = await self._search.list_versions(parent, listing(request))
        return pb.ListVersionsResponse(
            versions=[codec.version(version) for version in page.items],
            next_page_token=page.next_token,
            watch_cursor=page.watch_cursor,
        )

    async def UpdateVersion(
        self, request: pb.UpdateVersionRequest, context: Context
    ) -> pb.UpdateVersionResponse:
        """Change what may be changed of a version."""
        version = await self._lifecycle.edit(
            VersionName.parse(request.version.name, "version.name"),
            codec.version_edit(request.version),
            paths=codec.version_paths(request),
            etag=request.version.etag,
            actor=current_call().caller.principal,
            key=current_call().key(request),
        )
        return pb.UpdateVersionResponse(version=codec.version(version))

    async def ArchiveVersion(
        self, request: pb.ArchiveVersionRequest, context: Context
    ) -> pb.ArchiveVersionResponse:
        """Archive a version."""
        name, actor = VersionName.parse(request.name), current_call().caller.principal
        version = await self._lifecycle.archive(name, etag=request.etag, actor=actor)
        return pb.ArchiveVersionResponse(version=codec.version(version))

    async def UnarchiveVersion(
        self, request: pb.UnarchiveVersionRequest, context: Context
    ) -> pb.UnarchiveVersionResponse:
        """Take back that a version was archived."""
        name, actor = VersionName.parse(request.name), current_call().caller.principal
        version = await self._lifecycle.unarchive(name, actor=actor)
        return pb.UnarchiveVersionResponse(version=codec.version(version))

    async def DeleteVersion(
        self, request: pb.DeleteVersionRequest, context: Context
    ) -> pb.DeleteVersionResponse:
        """Delete a version."""
        name, actor = VersionName.parse(request.name), current_call().caller.principal
        version = await self._lifecycle.delete(name, etag=request.etag, actor=actor)
        return pb.DeleteVersionResponse(version=codec.version(version))

    async def RestoreVersion(
        self, request: pb.RestoreVersionRequest, context: Context
    ) -> pb.RestoreVersionResponse:
        """Take back that a version was deleted."""
        name, actor = VersionName.parse(request.name), current_call().caller.principal
        version = await self._lifecycle.restore(name, actor=actor)
        return pb.RestoreVersionResponse(version=codec.version(version))

    async def PurgeVersion(
        self, request: pb.PurgeVersionRequest, context: Context
    ) -> pb.PurgeVersionResponse:
        """Remove a deleted version for ever."""
        name, actor = VersionName.parse(request.name), current_call().caller.principal
        await self._lifecycle.purge(name, actor=actor)
        return pb.PurgeVersionResponse()

    async def CreateEvaluation(
        self, request: pb.CreateEvaluationRequest, context: Context
    ) -> pb.CreateEvaluationResponse:
        """Record an evaluation of a version."""
        parent, draft = (
            VersionName.parse(request.parent, "parent"),
            codec.evaluation_draft(request.evaluation),
        )
        creator, key = current_call().caller.principal, current_call().key(request)
        made = await self._evaluating.create(parent, draft, creator=creator, key=key)
        return pb.CreateEvaluationResponse(evaluation=codec.evaluation(made))

    async def ListEvaluations(
        self, request: pb.ListEvaluationsRequest, context: Context
    ) -> pb.ListEvaluationsResponse:
        """Return a page of a version's evaluations."""
        parent = VersionName.parse(request.parent, "parent")
        page = await self._evaluating.list_evaluations(parent, listing(request))
        return pb.ListEvaluationsResponse(
            evaluations=[codec.evaluation(evaluation) for evaluation in page.items],
            next_page_token=page.next_token,
        )

    async def UpdateAlias(
        self, request: pb.UpdateAliasRequest, context: Context
    ) -> pb.UpdateAliasResponse:
        """Point an alias to a version."""
        call = current_call()
        move = codec.alias_move(request, call.caller)
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
            aliases=[codec.alias(alias) for alias in page.items],
            next_page_token=page.next_token,
            watch_cursor=page.watch_cursor,
        )

    async def DeleteAlias(
        self, request: pb.DeleteAliasRequest, context: Context
    ) -> pb.DeleteAliasResponse:
        """Delete an alias."""
        name, caller = AliasName.parse(request.name), current_call().caller
        await self._pointing.delete(
            name,
            actor=caller.principal,
            reason=limits.lines(request.reason, "reason", limits.REASON),
            etag=request.etag,
            may_deploy=caller.may(Right.DEPLOY, name.project),
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

    @endless
    async def WatchModels(
        self, request: pb.WatchModelsRequest, context: Context
    ) -> AsyncIterator[pb.WatchModelsResponse]:
        """Follow the changes of models, versions and aliases."""
        wanted = watching_codec.wanted(request)
        async with aclosing(self._watch.follow(wanted)) as batches:
            async for batch in batches:
                yield watching_codec.model_changes(batch, wanted.parent.project)
