"""Between the queue's messages and its domain: pure functions."""

from __future__ import annotations

from modelyard.builder.v1 import build_limits_pb2, build_pb2, worker_pb2

from services.builder.codec import timestamp
from services.builder.queue.domain import MAX_RUNNING, Scope, Standing, Worker
from services.builder.spec import Resources
from services.common.errors import invalid_field
from services.common.names import ModelName, ProjectName


def scope(text: str, field: str) -> Scope:
    """Read what limits are for."""
    if "/models/" in text:
        model = ModelName.parse(text, field)
        return Scope(model.project, model.model)
    return Scope(ProjectName.parse(text, field).project)


def maximum(message: build_limits_pb2.BuildLimits) -> int | None:
    """Read the limit that is set."""
    if not message.HasField("max_running_builds"):
        return None
    if not 0 <= message.max_running_builds <= MAX_RUNNING:
        raise invalid_field("build_limits.max_running_builds", f"must be 0 to {MAX_RUNNING}")
    return message.max_running_builds


def limits(found: Standing) -> build_limits_pb2.BuildLimits:
    """Write limits and how it stands with them."""
    return build_limits_pb2.BuildLimits(
        resource=found.scope.name,
        max_running_builds=found.own,
        effective_max_running_builds=found.effective,
        running_builds=found.running,
        queued_builds=found.queued,
    )


def worker(found: Worker) -> worker_pb2.Worker:
    """Write a worker."""
    return worker_pb2.Worker(
        worker=found.worker,
        pool=found.pool,
        max_builds=found.max_builds,
        total=resources_message(found.total),
        builds=found.builds,
        start_time=timestamp(found.start_time),
        sign_time=timestamp(found.sign_time),
        alive=found.alive,
    )


def resources_message(found: Resources) -> build_pb2.Resources:
    """Write resources."""
    return build_pb2.Resources(
        cpu_cores=found.cpu_cores,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
    )
