"""`client.models`: named lines of versions."""

# ruff: noqa: A002  # `filter` is what the API calls it

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from modelyard._names import Ref
from modelyard._transport.binding import AsyncGroup, Group, SyncGroup, paged, unary
from modelyard._transport.calls import Call, Pages, call, new_request_id, pages
from modelyard.errors import InvalidArgumentError
from modelyard.metadata.v1 import model_pb2
from modelyard.metadata.v1 import model_service_pb2 as service


class _Models(Group):
    @unary
    def create(
        self,
        model_id: str,
        *,
        display_name: str = "",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        metric_goals: Mapping[str, str] | None = None,
        project: Ref | None = None,
    ) -> Call[model_pb2.Model]:
        """Create a model; `metric_goals` says `maximize` or `minimize` for each metric."""
        model = model_pb2.Model(
            display_name=display_name,
            description=description,
            labels=labels,
            metric_goals=_goals(metric_goals),
        )
        request = service.CreateModelRequest(
            parent=self._names.project(project),
            model_id=model_id,
            model=model,
            request_id=new_request_id(),
        )
        return call(request, service.CreateModelResponse, lambda r: r.model)

    @unary
    def get(self, model: Ref) -> Call[model_pb2.Model]:
        """Get a model."""
        request = service.GetModelRequest(name=self._names.model(model))
        return call(request, service.GetModelResponse, lambda r: r.model)

    @paged
    def list(
        self,
        *,
        filter: str = "",
        order_by: str = "",
        show_deleted: bool = False,
        project: Ref | None = None,
    ) -> Pages[model_pb2.Model]:
        """List a project's models."""
        request = service.ListModelsRequest(
            parent=self._names.project(project),
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
        )
        return pages(request, service.ListModelsResponse, lambda r: r.models)

    @unary
    def update(
        self,
        model: Ref,
        *,
        display_name: str | None = None,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        metric_goals: Mapping[str, str] | None = None,
        etag: str = "",
    ) -> Call[model_pb2.Model]:
        """Change what is given; with an etag only if nobody else did since."""
        given = {
            "display_name": display_name,
            "description": description,
            "labels": labels,
            "metric_goals": metric_goals,
        }
        changed = model_pb2.Model(
            name=self._names.model(model),
            display_name=display_name or "",
            description=description or "",
            labels=labels,
            metric_goals=_goals(metric_goals),
            etag=etag,
        )
        request = service.UpdateModelRequest(
            model=changed,
            update_mask=FieldMask(paths=[key for key, value in given.items() if value is not None]),
            request_id=new_request_id(),
        )
        return call(request, service.UpdateModelResponse, lambda r: r.model)

    @unary
    def delete(self, model: Ref, *, etag: str = "") -> Call[model_pb2.Model]:
        """Delete a model that nothing needs; it can be restored until it is purged.

        The refusal names what needs it: aliases, deployments, runs that are running.
        """
        request = service.DeleteModelRequest(name=self._names.model(model), etag=etag)
        return call(request, service.DeleteModelResponse, lambda r: r.model)

    @unary
    def restore(self, model: Ref) -> Call[model_pb2.Model]:
        """Take back that a model was deleted."""
        request = service.RestoreModelRequest(name=self._names.model(model))
        return call(request, service.RestoreModelResponse, lambda r: r.model)

    @unary
    def purge(self, model: Ref) -> Call[None]:
        """Remove a deleted model for ever, with its versions and runs.

        Its name is free again; a model of that name goes on with the version numbers.
        """
        request = service.PurgeModelRequest(name=self._names.model(model))
        return call(request, service.PurgeModelResponse, lambda _: None)


class Models(_Models, SyncGroup):
    """Named lines of versions."""


class AsyncModels(_Models, AsyncGroup):
    """Named lines of versions."""


def _goals(goals: Mapping[str, str] | None) -> dict[str, model_pb2.MetricGoal.ValueType]:
    return {key: _goal(key, goal) for key, goal in (goals or {}).items()}


def _goal(key: str, goal: str) -> model_pb2.MetricGoal.ValueType:
    match goal.lower():
        case "maximize":
            return model_pb2.METRIC_GOAL_MAXIMIZE
        case "minimize":
            return model_pb2.METRIC_GOAL_MINIMIZE
    raise InvalidArgumentError(
        f"the goal of {key!r} is 'maximize' or 'minimize', not {goal!r}", reason="INVALID_FIELD"
    )
