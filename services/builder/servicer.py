"""The gRPC edge of build orders: check, one call, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from modelyard.builder.v1 import build_service_pb2 as pb
from modelyard.builder.v1 import build_service_pb2_grpc

from services.builder import codec, event_codec
from services.builder.ledger import Ledger
from services.builder.orders import Orders
from services.common.auth import current_call
from services.common.listing import pagination
from services.common.names import BuildName, ProjectName
from services.common.rpc.draining import endless

Context = grpc.aio.ServicerContext[Any, Any]


class BuildServicer(build_service_pb2_grpc.BuildServiceServicer):
    """Serve `modelyard.builder.v1.BuildService`."""

    def __init__(self, *, orders: Orders, ledger: Ledger) -> None:
        self._orders = orders
        self._ledger = ledger

    async def CreateBuild(
        self, request: pb.CreateBuildRequest, context: Context
    ) -> pb.CreateBuildResponse:
        """Queue a build."""
        call = current_call()
        project, model, spec = codec.new_build(request)
        creator, credential = call.caller.principal, call.caller.credential
        build = await self._orders.create(
            project, model, spec, creator=creator, credential=credential, key=call.key(request)
        )
        return pb.CreateBuildResponse(build=codec.build(build))

    async def GetBuild(self, request: pb.GetBuildRequest, context: Context) -> pb.GetBuildResponse:
        """Return a build."""
        build = await self._orders.get(BuildName.parse(request.name))
        return pb.GetBuildResponse(build=codec.build(build))

    async def ListBuilds(
        self, request: pb.ListBuildsRequest, context: Context
    ) -> pb.ListBuildsResponse:
        """Return a page of a project's builds."""
        project = ProjectName.parse(request.parent, "parent").project
        size, before = pagination.page_size(request.page_size), codec.page_start(request)
        builds = await self._orders.list(
            project, where=request.filter, before=before, limit=size + 1
        )
        return codec.page(request, builds, size)

    async def CancelBuild(
        self, request: pb.CancelBuildRequest, context: Context
    ) -> pb.CancelBuildResponse:
        """Cancel a build."""
        build = await self._orders.cancel(BuildName.parse(request.name))
        return pb.CancelBuildResponse(build=codec.build(build))

    @endless
    async def StreamBuildEvents(  # type: ignore[override]  # stored bytes go out as they are
        self, request: pb.StreamBuildEventsRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Send a build's events on as they are stored."""
        name, follow = BuildName.parse(request.build, "build"), not request.no_follow
        wanted = event_codec.selection(request)
        events = self._ledger.follow(name, request.cursor, follow=follow, wanted=wanted)
        async for entry in events:
            yield codec.stored_events(entry.batch, entry.cursor)
