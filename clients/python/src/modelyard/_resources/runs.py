"""`client.runs`: training executions. Logging is done by `modelyard.start_run`."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._history import MetricPoints, samples
from modelyard._ingest import Outgoing
from modelyard._names import Names, Ref
from modelyard._resources.comparisons import compare
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, flow, paged, unary
from modelyard._transport.calls import Call, Flow, Pages, ask, call, new_request_id, pages
from modelyard._writer import PATIENCE, AsyncRunWriter, RunWriter
from modelyard.common.v1 import failure_pb2
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import comparison_service_pb2, run_pb2
from modelyard.metadata.v1 import run_service_pb2 as service

_POINTS_PER_PAGE = 100_000
_END_STATES = {
    "succeeded": run_pb2.RUN_STATE_SUCCEEDED,
    "failed": run_pb2.RUN_STATE_FAILED,
    "cancelled": run_pb2.RUN_STATE_CANCELLED,
}


class _Runs(Group):
    @unary
    def create(
        self,
        model: Ref,
        *,
        run_id: str = "",
        display_name: str = "",
        tags: Mapping[str, str] | None = None,
        group: str = "",
        notes: str = "",
        build: Ref | None = None,
        request_id: str = "",
    ) -> Call[run_pb2.Run]:
        """Start a run; a `request_id` of one's own makes it safe to repeat after a crash."""
        run = run_pb2.Run(
            display_name=display_name,
            tags=tags,
            group=group,
            notes=notes,
            build="" if build is None else self._names.build(build),
        )
        request = service.CreateRunRequest(
            parent=self._names.model(model),
            run_id=run_id,
            run=run,
            request_id=request_id or new_request_id(),
        )
        return call(request, service.CreateRunResponse, lambda r: r.run)

    @unary
    def get(self, run: Ref) -> Call[run_pb2.Run]:
        """Get a run, `churn/RUN` in short."""
        request = service.GetRunRequest(name=self._names.run(run))
        return call(request, service.GetRunResponse, lambda r: r.run)

    @unary
    def update(
        self,
        run: Ref,
        *,
        display_name: str | None = None,
        notes: str | None = None,
        tags: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Call[run_pb2.Run]:
        """Change what is given of a run, ended or not; `tags` replace all it has."""
        given = {"display_name": display_name, "notes": notes, "tags": tags}
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        request = service.UpdateRunRequest(
            run=run_pb2.Run(name=self._names.run(run), etag=etag, **values),
            update_mask=FieldMask(paths=list(values)),
            request_id=new_request_id(),
        )
        return call(request, service.UpdateRunResponse, lambda r: r.run)

    @unary
    def delete(self, run: Ref, *, etag: str = "") -> Call[run_pb2.Run]:
        """Delete a run that no version came from; it can be restored until it is purged."""
        request = service.DeleteRunRequest(name=self._names.run(run), etag=etag)
        return call(request, service.DeleteRunResponse, lambda r: r.run)

    @unary
    def restore(self, run: Ref) -> Call[run_pb2.Run]:
        """Take back that a run was deleted."""
        request = service.RestoreRunRequest(name=self._names.run(run))
        return call(request, service.RestoreRunResponse, lambda r: r.run)

    @unary
    def purge(self, run: Ref) -> Call[None]:
        """Remove a deleted run and its metrics for ever."""
        request = service.PurgeRunRequest(name=self._names.run(run))
        return call(request, service.PurgeRunResponse, lambda _: None)

    @paged
    def search(
        self,
        *,
        model: Ref | None = None,
        filter: str = "",
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> Pages[run_pb2.Run]:
        """Find runs of a model, or of all: `metrics.f1 > 0.7 AND tags.team = "risk"`.

        Of the first few, `page_size` says how many are fetched at once.
        """
        request = service.ListRunsRequest(
            parent=self._names.model(model),
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            page_size=page_size,
        )
        return pages(request, service.ListRunsResponse, lambda r: r.runs)

    @paged
    def list(
        self, model: Ref | None = None, *, group: str = "", show_deleted: bool = False
    ) -> Pages[run_pb2.Run]:
        """List the runs of a model, or of all models, or of one group; newest first."""
        request = service.ListRunsRequest(
            parent=self._names.model(model),
            filter=f"group = {json.dumps(group)}" if group else "",
            show_deleted=show_deleted,
        )
        return pages(request, service.ListRunsResponse, lambda r: r.runs)

    @flow
    def metric_points(self, run: Ref, key: str) -> Flow[MetricPoints]:
        """Read one metric's whole history, by step."""
        whole = MetricPoints(key, [], [], [])
        request = service.ListMetricPointsRequest(
            run=self._names.run(run), key=key, page_size=_POINTS_PER_PAGE
        )
        while True:
            page = yield from ask(call(request, service.ListMetricPointsResponse, lambda r: r))
            whole.extend(page.points)
            if not page.next_page_token:
                return whole
            request.page_token = page.next_page_token

    @unary
    def sample_metrics(
        self,
        run: Ref,
        *keys: str,
        max_points: int = 1_000,
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> Call[dict[str, MetricPoints]]:
        """Read metrics for a chart, all without `keys`: the line stays what it is, peaks and gaps.

        `sampled_from` of each says how many points it was drawn from; `end_step` is the first step
        not to look at.
        """
        request = service.SampleMetricPointsRequest(
            run=self._names.run(run),
            keys=keys,
            max_points=max_points,
            start_step=start_step,
            end_step=end_step,
        )
        return call(request, service.SampleMetricPointsResponse, samples)

    @flow
    def compare(
        self, runs: Sequence[Ref], *, code: bool = True
    ) -> Flow[comparison_service_pb2.CompareResponse]:
        """Put runs side by side; the others are held against the first."""
        return (yield from compare(self._names, runs, Names.run, code=code))

    @unary
    def finish(
        self, run: Ref, state: str = "succeeded", *, reason: str = "", message: str = ""
    ) -> Call[run_pb2.Run]:
        """End a run as `succeeded`, `failed` (with reason and message) or `cancelled`."""
        if state not in _END_STATES:
            raise InvalidArgumentError(
                f"a run ends as one of {', '.join(_END_STATES)}, not {state!r}",
                reason="INVALID_FIELD",
            )
        failure = failure_pb2.Failure(reason=reason, message=message) if reason else None
        request = service.FinishRunRequest(
            name=self._names.run(run), state=_END_STATES[state], failure=failure
        )
        return call(request, service.FinishRunResponse, lambda r: r.run)


class Runs(_Runs, SyncGroup):
    """Training executions."""

    def writer(self, run: Ref, *, patience: float = PATIENCE) -> RunWriter:
        """Return a writer to be used with `with`: each call returns once it is durable.

        While the server is away it waits up to `patience` seconds, then raises UnavailableError.
        """
        return RunWriter(self._connection, Outgoing(self._names.run(run)), patience=patience)


class AsyncRuns(_Runs, AsyncGroup):
    """Training executions."""

    def writer(self, run: Ref, *, patience: float = PATIENCE) -> AsyncRunWriter:
        """Return a writer to be used with `async with`: each call returns once it is durable."""
        return AsyncRunWriter(self._connection, Outgoing(self._names.run(run)), patience=patience)
