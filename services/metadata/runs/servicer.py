"""The gRPC edge of runs: check, one call, encode."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from modelyard.metadata.v1 import run_service_pb2 as pb
from modelyard.metadata.v1 import run_service_pb2_grpc

from services.common.auth import current_call
from services.common.names import ModelName, RunName
from services.common.rpc.draining import endless
from services.metadata import limits
from services.metadata.runs import codec
from services.metadata.runs.history import History
from services.metadata.runs.ingesting import Ingestor
from services.metadata.runs.pipelining import pipelined
from services.metadata.runs.searching import RunSearch
from services.metadata.runs.tracker import Tracker
from services.metadata.runs.upkeep import Upkeep
from services.metadata.watching import codec as watching_codec
from services.metadata.watching.watch import Watch
from services.metadata.wire import listing

Context = grpc.aio.ServicerContext[Any, Any]

POINTS_DEFAULT = 10_000
POINTS_MAXIMUM = 100_000
INGEST_DEPTH = 16


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """Serve `modelyard.metadata.v1.RunService`."""

    def __init__(
        self,
        *,
        tracker: Tracker,
        search: RunSearch,
        upkeep: Upkeep,
        ingestor: Ingestor,
        history: History,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._tracker = tracker
        self._search = search
        self._upkeep = upkeep
        self._ingestor = ingestor
        self._history = history

    async def CreateRun(
        self, request: pb.CreateRunRequest, context: Context
    ) -> pb.CreateRunResponse:
        """Start a run."""
        call, parent = current_call(), ModelName.parse(request.parent, "parent")
        run_id, draft = codec.new_run(request, parent)
        creator, key = call.caller.principal, call.key(request)
        run = await self._tracker.create(parent, run_id, draft, creator=creator, key=key)
        return pb.CreateRunResponse(run=codec.run(run))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Return a run."""
        run = await self._tracker.get(RunName.parse(request.name))
        return pb.GetRunResponse(run=codec.run(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Return a page of runs."""
        parent = ModelName.parse(request.parent, "parent", wildcard=True)
        page = await self._search.list_runs(parent, listing(request))
        return codec.page(page)

    @endless
    async def IngestRunData(
        self, requests: AsyncIterator[pb.IngestRunDataRequest], context: Context
    ) -> AsyncIterator[pb.IngestRunDataResponse]:
        """Keep batches, each acknowledged once durable; the next is read meanwhile."""
        async for answer in pipelined(self._submit(requests), depth=INGEST_DEPTH):
            yield pb.IngestRunDataResponse(acknowledged_sequence=await answer)

    async def GetIngestPosition(
        self, request: pb.GetIngestPositionRequest, context: Context
    ) -> pb.GetIngestPositionResponse:
        """Say how far a writer's batches are kept."""
        name, writer = RunName.parse(request.run, "run"), codec.writer(request.writer)
        kept = await self._tracker.position(name, writer)
        return pb.GetIngestPositionResponse(acknowledged_sequence=kept)

    async def FinishRun(
        self, request: pb.FinishRunRequest, context: Context
    ) -> pb.FinishRunResponse:
        """End a run."""
        state, failure = codec.outcome(request)
        run = await self._tracker.finish(
            RunName.parse(request.name), state, failure, actor=current_call().caller.principal
        )
        return pb.FinishRunResponse(run=codec.run(run))

    async def UpdateRun(
        self, request: pb.UpdateRunRequest, context: Context
    ) -> pb.UpdateRunResponse:
        """Change what may be changed of a run."""
        call = current_call()
        run = await self._upkeep.edit(
            RunName.parse(request.run.name, "run.name"),
            codec.edit(request.run),
            paths=codec.edit_paths(request),
            etag=request.run.etag,
            actor=call.caller.principal,
            key=call.key(request),
        )
        return pb.UpdateRunResponse(run=codec.run(run))

    async def DeleteRun(
        self, request: pb.DeleteRunRequest, context: Context
    ) -> pb.DeleteRunResponse:
        """Delete a run."""
        name, actor = RunName.parse(request.name), current_call().caller.principal
        run = await self._upkeep.delete(name, etag=request.etag, actor=actor)
        return pb.DeleteRunResponse(run=codec.run(run))

    async def RestoreRun(
        self, request: pb.RestoreRunRequest, context: Context
    ) -> pb.RestoreRunResponse:
        """Take back that a run was deleted."""
        name, actor = RunName.parse(request.name), current_call().caller.principal
        run = await self._upkeep.restore(name, actor=actor)
        return pb.RestoreRunResponse(run=codec.run(run))

    async def PurgeRun(self, request: pb.PurgeRunRequest, context: Context) -> pb.PurgeRunResponse:
        """Remove a deleted run for ever."""
        name = RunName.parse(request.name)
        await self._upkeep.purge(name, actor=current_call().caller.principal)
        return pb.PurgeRunResponse()

    async def ListMetricPoints(
        self, request: pb.ListMetricPointsRequest, context: Context
    ) -> pb.ListMetricPointsResponse:
        """Return a page of one metric's points."""
        name = RunName.parse(request.run, "run")
        key = limits.line(request.key, "key", limits.KEY, required=True)
        wanted = listing(request, default=POINTS_DEFAULT, maximum=POINTS_MAXIMUM)
        points, token = await self._history.list_points(name, key, wanted)
        return pb.ListMetricPointsResponse(points=codec.points(points), next_page_token=token)

    async def SampleMetricPoints(
        self, request: pb.SampleMetricPointsRequest, context: Context
    ) -> pb.SampleMetricPointsResponse:
        """Return what a chart shows of a run's metrics."""
        name, wanted = RunName.parse(request.run, "run"), codec.sampling(request)
        samples = await self._history.sample(name, wanted)
        return pb.SampleMetricPointsResponse(samples=[codec.sample(one) for one in samples])

    async def _submit(
        self, requests: AsyncIterator[pb.IngestRunDataRequest]
    ) -> AsyncIterator[asyncio.Future[int]]:
        """Submit each batch of a stream."""
        stream = None
        async for request in requests:
            batch = codec.batch(request, stream)
            stream = batch.run
            yield self._ingestor.submit(batch)

    @endless
    async def WatchRuns(
        self, request: pb.WatchRunsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunsResponse]:
        """Follow the changes of runs."""
        wanted = watching_codec.wanted(request)
        async with aclosing(self._watch.follow(wanted)) as batches:
            async for batch in batches:
                yield watching_codec.run_changes(batch, wanted.parent.project)
