"""Between messages and domain: watches and changes."""

from __future__ import annotations

from modelyard.metadata.v1 import model_service_pb2 as models_pb
from modelyard.metadata.v1 import run_service_pb2 as runs_pb

from services.common.names import ModelName
from services.metadata.models import codec as model_codec
from services.metadata.models.domain import Alias, Model, Version
from services.metadata.runs import codec as run_codec
from services.metadata.runs.domain import Run
from services.metadata.watching.cursors import Stream, cursor_at
from services.metadata.watching.domain import Batch, Told
from services.metadata.watching.store import Resource
from services.metadata.watching.watch import Wanted
from services.metadata.wire import timestamp


def wanted(request: models_pb.WatchModelsRequest | runs_pb.WatchRunsRequest) -> Wanted:
    """Return what a watcher wants."""
    is_models = isinstance(request, models_pb.WatchModelsRequest)
    stream = Stream.MODELS if is_models else Stream.RUNS
    parent = ModelName.parse(request.parent, "parent", wildcard=True)
    return Wanted(stream, parent, request.filter, request.cursor)


def model_changes(batch: Batch[Resource], project: str) -> models_pb.WatchModelsResponse:
    """Return some changes of models, versions and aliases as a message."""
    changes = [_model_change(told, resource, project) for told, resource in batch.changes]
    return models_pb.WatchModelsResponse(cursor=batch.cursor, changes=changes)


def run_changes(batch: Batch[Resource], project: str) -> runs_pb.WatchRunsResponse:
    """Return some changes of runs as a message."""
    changes = [
        runs_pb.RunChange(
            type=runs_pb.RunChangeType.Value(f"RUN_CHANGE_TYPE_{told.type}"),
            name=told.change.name,
            change_time=timestamp(told.time),
            actor=told.change.actor,
            run=run_codec.run(run) if isinstance(run, Run) else None,
            cursor=cursor_at(Stream.RUNS, project, told.sequence),
        )
        for told, run in batch.changes
    ]
    return runs_pb.WatchRunsResponse(cursor=batch.cursor, changes=changes)


def _model_change(told: Told, resource: Resource | None, project: str) -> models_pb.ModelChange:
    change = told.change
    message = models_pb.ModelChange(
        type=models_pb.ModelChangeType.Value(f"MODEL_CHANGE_TYPE_{told.type}"),
        name=change.name,
        change_time=timestamp(told.time),
        actor=change.actor,
        old_version=change.old_version,
        new_version=change.new_version,
        user=change.user,
        evaluation=change.evaluation,
        cursor=cursor_at(Stream.MODELS, project, told.sequence),
    )
    if isinstance(resource, Model):
        message.model.CopyFrom(model_codec.model(resource))
    elif isinstance(resource, Version):
        message.version.CopyFrom(model_codec.version(resource))
    elif isinstance(resource, Alias):
        message.alias.CopyFrom(model_codec.alias(resource))
    return message
