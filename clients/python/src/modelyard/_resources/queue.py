"""`client.queue`: what takes builds, and what keeps them waiting."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, unary
from modelyard._transport.calls import Call, call
from modelyard.builder.v1 import build_limits_pb2, worker_pb2
from modelyard.builder.v1 import queue_service_pb2 as service


class _Queue(Group):
    @unary
    def limits(self, model: Ref | None = None) -> Call[build_limits_pb2.BuildLimits]:
        """Get the limits of a model, or of the project, and how it stands with them."""
        request = service.GetBuildLimitsRequest(resource=self._scope(model))
        return call(request, service.GetBuildLimitsResponse, lambda r: r.build_limits)

    @unary
    def set_limits(
        self, model: Ref | None = None, *, max_running: int | None
    ) -> Call[build_limits_pb2.BuildLimits]:
        """Let at most so many builds of a model, or of the project, run at a time.

        None: the installation's default holds again; 0 keeps all of them waiting.
        """
        limits = build_limits_pb2.BuildLimits(
            resource=self._scope(model), max_running_builds=max_running
        )
        request = service.SetBuildLimitsRequest(build_limits=limits)
        return call(request, service.SetBuildLimitsResponse, lambda r: r.build_limits)

    @unary
    def workers(self, *, pool: str = "", lost: bool = False) -> Call[Sequence[worker_pb2.Worker]]:
        """List the installation's workers and what they run; `lost`: those of the last day too."""
        request = service.ListWorkersRequest(pool=pool, include_lost=lost)
        return call(request, service.ListWorkersResponse, lambda r: r.workers)

    def _scope(self, model: Ref | None) -> str:
        return self._names.project() if model is None else self._names.model(model)


class Queue(_Queue, SyncGroup):
    """What takes builds, and what keeps them waiting."""


class AsyncQueue(_Queue, AsyncGroup):
    """What takes builds, and what keeps them waiting."""
