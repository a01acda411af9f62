"""Between messages and domain: models, versions, aliases."""

from __future__ import annotations

import re
from collections.abc import Mapping

from modelyard.metadata.v1 import (
    alias_pb2,
    evaluation_pb2,
    model_pb2,
    model_service_pb2,
    version_pb2,
)

from services.common.auth import Identity, Right
from services.common.errors import invalid_field
from services.common.names import (
    AliasName,
    ArtifactName,
    BuildName,
    ModelName,
    RunName,
    VersionName,
    check_id,
    invalid_name,
)
from services.metadata import limits
from services.metadata.models.domain import (
    Alias,
    AliasChange,
    AliasMove,
    Evaluation,
    EvaluationDraft,
    MetricGoal,
    Model,
    ModelDraft,
    Version,
    VersionDraft,
    VersionEdit,
)
from services.metadata.wire import failure, moment, stamp, value

GOALS = 1_000
ALIASES = 20
MODEL_PATHS = ("display_name", "description", "labels", "metric_goals")
_IMAGE = re.compile(r"[^\s@/]+/[^\s@]+@sha256:[0-9a-f]{64}")
VERSION_PATHS = ("description", "labels", "card", "license", "image")
OUTPUT_PATHS = frozenset({"name", "etag", "create_time", "update_time", "delete_time"})


def model_draft(message: model_pb2.Model) -> ModelDraft:
    """Return what the caller says of a model."""
    return ModelDraft(
        display_name=limits.line(message.display_name, "model.display_name", limits.DISPLAY_NAME),
        description=limits.lines(message.description, "model.description", limits.DESCRIPTION),
        labels=limits.labels(message.labels, "model.labels"),
        metric_goals=_goals(message.metric_goals),
    )


def update_paths(request: model_service_pb2.UpdateModelRequest) -> tuple[str, ...]:
    """Return which fields of a model to change: the mask's, or all that are set."""
    paths = request.update_mask.paths
    for path in paths:
        if path not in MODEL_PATHS and path not in OUTPUT_PATHS:
            raise invalid_field("update_mask", f"must name some of {', '.join(MODEL_PATHS)}")
    if paths:
        return tuple(path for path in MODEL_PATHS if path in paths)
    return tuple(path for path in MODEL_PATHS if getattr(request.model, path))


def model(found: Model) -> model_pb2.Model:
    """Return a model's message."""
    goals = {key: _goal(goal) for key, goal in found.metric_goals.items()}
    message = model_pb2.Model(
        name=str(found.name),
        display_name=found.display_name,
        description=found.description,
        labels=found.labels,
        metric_goals=goals,
        etag=str(found.revision),
    )
    stamp(message.create_time, found.create_time)
    stamp(message.update_time, found.update_time)
    stamp(message.delete_time, found.delete_time)
    return message


def version_draft(
    request: model_service_pb2.CreateVersionRequest, parent: ModelName, caller: Identity
) -> VersionDraft:
    """Return what the caller says of a version; `tests_passed` is believed of builds only."""
    message = request.version
    _check_origins(message, parent)
    if len(request.aliases) > ALIASES:
        raise invalid_field("aliases", f"must not be more than {ALIASES}")
    artifact = ArtifactName.parse(message.artifact, "version.artifact")
    if artifact.project != parent.project:
        raise invalid_field("version.artifact", "must be of the model's project")
    digest = message.environment_digest
    return VersionDraft(
        artifact=artifact.artifact,
        run=message.run,
        build=message.build,
        label=limits.line(message.label, "version.label", limits.VERSION_LABEL),
        description=limits.lines(message.description, "version.description", limits.DESCRIPTION),
        labels=limits.labels(message.labels, "version.labels"),
        card=limits.lines(message.card, "version.card", limits.CARD),
        license=limits.line(message.license, "version.license", limits.LICENSE),
        image=_image(message.image),
        environment_digest=limits.digest(digest, "version.environment_digest") if digest else "",
        tests_passed=request.tests_passed and _is_build(caller, message.build),
        aliases=tuple(dict.fromkeys(check_id(alias, "aliases") for alias in request.aliases)),
        may_deploy=caller.may(Right.DEPLOY, parent.project),
    )


def _image(text: str) -> str:
    """Read what names a container image for ever."""
    if text and not _IMAGE.fullmatch(limits.line(text, "version.image", limits.IMAGE)):
        raise invalid_field("version.image", "must be registry/repository@sha256:…")
    return text


def version_edit(message: version_pb2.Version) -> VersionEdit:
    """Return the new values of what may be changed of a version."""
    return VersionEdit(
        description=limits.lines(message.description, "version.description", limits.DESCRIPTION),
        labels=limits.labels(message.labels, "version.labels"),
        card=limits.lines(message.card, "version.card", limits.CARD),
        license=limits.line(message.license, "version.license", limits.LICENSE),
        image=_image(message.image),
    )


def version_paths(request: model_service_pb2.UpdateVersionRequest) -> tuple[str, ...]:
    """Return which fields of a version to change: the mask's, or all that are set."""
    paths = request.update_mask.paths
    if not set(paths) <= set(VERSION_PATHS):
        raise invalid_field("update_mask", f"must name some of {', '.join(VERSION_PATHS)}")
    if paths:
        return tuple(paths)
    return tuple(path for path in VERSION_PATHS if getattr(request.version, path))


def evaluation_draft(message: evaluation_pb2.Evaluation) -> EvaluationDraft:
    """Return what the caller says of an evaluation."""
    if not 0 < len(message.metrics) <= GOALS:
        raise invalid_field("evaluation.metrics", f"must hold 1 to {GOALS} values")
    for key in message.metrics:
        limits.line(key, "evaluation.metrics", limits.KEY, required=True)
    has_time = message.HasField("evaluate_time")
    return EvaluationDraft(
        metrics=dict(message.metrics),
        dataset_version=message.dataset_version,
        evaluate_time=moment(message.evaluate_time, "evaluation.evaluate_time")
        if has_time
        else None,
        notes=limits.lines(message.notes, "evaluation.notes", limits.REASON),
    )


def evaluation(found: Evaluation) -> evaluation_pb2.Evaluation:
    """Return an evaluation's message."""
    message = evaluation_pb2.Evaluation(
        name=str(found.name),
        metrics=found.metrics,
        dataset_version=found.dataset_version,
        notes=found.notes,
        creator=found.creator,
    )
    stamp(message.evaluate_time, found.evaluate_time)
    stamp(message.create_time, found.create_time)
    return message


def version(found: Version) -> version_pb2.Version:
    """Return a version's message."""
    message = version_pb2.Version(
        name=str(found.name),
        state=version_pb2.VersionState.Value(f"VERSION_STATE_{found.state}"),
        failure=failure(found.failure),
        artifact=found.artifact,
        run=found.run,
        build=found.build,
        label=found.label,
        description=found.description,
        labels=found.labels,
        params={key: value(param) for key, param in found.params.items()},
        metrics=found.metrics,
        environment_digest=found.environment_digest,
        tests_passed=found.tests_passed,
        creator=found.creator,
        aliases=found.aliases,
        card=found.card,
        license=found.license,
        image=found.image,
        etag=str(found.revision),
    )
    stamp(message.create_time, found.create_time)
    stamp(message.ready_time, found.ready_time)
    stamp(message.archive_time, found.archive_time)
    stamp(message.delete_time, found.delete_time)
    return message


def resolved(found: Version) -> bytes:
    """Return the answer to what names a version, encoded."""
    return model_service_pb2.ResolveVersionResponse(version=version(found)).SerializeToString()


def short_name(text: str) -> VersionName | AliasName | ModelName:
    """Return what a short form names: a version, an alias or a model."""
    for kind in (VersionName, AliasName, ModelName):
        if kind.expression.fullmatch(text):
            return kind.parse(text)
    raise invalid_name("name", "must be the name of a version, an alias or a model")


def alias_move(request: model_service_pb2.UpdateAliasRequest, caller: Identity) -> AliasMove:
    """Return what a caller wants of an alias."""
    name = AliasName.parse(request.alias.name, "alias.name")
    target = VersionName.parse(request.alias.version, "alias.version")
    if target.parent != name.parent:
        raise invalid_field("alias.version", "must be of the alias's model")
    expected = request.expected_version if request.HasField("expected_version") else None
    if expected:
        expected = str(VersionName.parse(expected, "expected_version"))
    return AliasMove(
        name=name,
        version=target,
        actor=caller.principal,
        reason=limits.lines(request.reason, "reason", limits.REASON),
        expected_version=expected,
        etag=request.alias.etag,
        may_deploy=caller.may(Right.DEPLOY, name.project),
    )


def alias(found: Alias) -> alias_pb2.Alias:
    """Return an alias's message."""
    message = alias_pb2.Alias(
        name=str(found.name), version=str(found.version), etag=str(found.change)
    )
    stamp(message.update_time, found.update_time)
    return message


def alias_change(found: AliasChange) -> alias_pb2.AliasChange:
    """Return the message of an entry of an alias's history."""
    message = alias_pb2.AliasChange(
        alias=str(found.alias),
        old_version=found.old_version,
        new_version=found.new_version,
        actor=found.actor,
        reason=found.reason,
    )
    stamp(message.change_time, found.change_time)
    return message


def _goals(found: Mapping[str, int]) -> dict[str, MetricGoal]:
    if len(found) > GOALS:
        raise invalid_field("model.metric_goals", f"must not hold more than {GOALS} entries")
    goals: dict[str, MetricGoal] = {}
    for key, goal in found.items():
        limits.line(key, "model.metric_goals", limits.KEY, required=True)
        if goal not in (model_pb2.METRIC_GOAL_MAXIMIZE, model_pb2.METRIC_GOAL_MINIMIZE):
            raise invalid_field("model.metric_goals", "must be MAXIMIZE or MINIMIZE")
        maximize = goal == model_pb2.METRIC_GOAL_MAXIMIZE
        goals[key] = MetricGoal.MAXIMIZE if maximize else MetricGoal.MINIMIZE
    return goals


def _goal(goal: MetricGoal | None) -> model_pb2.MetricGoal.ValueType:
    if goal is None:
        return model_pb2.METRIC_GOAL_UNSPECIFIED
    return model_pb2.MetricGoal.Value(f"METRIC_GOAL_{goal}")


def _check_origins(message: version_pb2.Version, parent: ModelName) -> None:
    if message.run and RunName.parse(message.run, "version.run").parent != parent:
        raise invalid_field("version.run", "must be of the same model")
    if message.build:
        build = BuildName.parse(message.build, "version.build")
        if build.project != parent.project:
            raise invalid_field("version.build", "must be of the model's project")


def _is_build(caller: Identity, build: str) -> bool:
    """Say whether the caller acts for the very build the version names, and a service says so.

    Anyone may issue himself a delegation that names a build; only the builder renews it.
    """
    delegated = caller.delegated_resource
    named = bool(BuildName.expression.fullmatch(delegated)) and delegated == build
    return named and bool(caller.voucher)
