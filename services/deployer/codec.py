"""Proto ↔ domain, pure; what a message may not say is refused here."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from modelyard.common.v1 import failure_pb2
from modelyard.deployer.v1 import assignment_pb2, deployment_pb2, environment_pb2
from modelyard.metadata.v1 import dataset_pb2, model_pb2, version_pb2

from services.common.errors import invalid_field
from services.common.names import DeploymentName
from services.deployer.domain import (
    AssignedVariant,
    Assignment,
    Candidate,
    Deployment,
    Environment,
    Failure,
    Goal,
    Report,
    Revision,
    Sample,
    TargetKind,
    VariantReport,
    VariantState,
    Verdict,
)
from services.deployer.environments import gate_codec
from services.deployer.rollouts import plan_codec
from services.deployer.timestamps import timestamp

MAX_DESCRIPTION = 65_536
MAX_REASON = 1_000
MAX_NAME = 300
MAX_FAILURE = 4_000
MAX_FAILURE_REASON = 63
MAX_ADDRESS = 300
MAX_SCALING = 300
MAX_VARIANTS = 64
_UNKNOWN = VariantReport(0, VariantState.STARTING)
_TARGETS: dict[int, TargetKind] = {
    environment_pb2.TARGET_KIND_UNSPECIFIED: TargetKind.PROCESS,
    environment_pb2.TARGET_KIND_PROCESS: TargetKind.PROCESS,
    environment_pb2.TARGET_KIND_EXTERNAL: TargetKind.EXTERNAL,
}
_CONTROLLER = re.compile(r"[a-z0-9-]{1,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5}")


def encode_environment(environment: Environment) -> environment_pb2.Environment:
    """Encode an environment."""
    return environment_pb2.Environment(
        name=str(environment.name),
        description=environment.description,
        gates=[gate_codec.encode_gate(gate) for gate in environment.gates],
        address=environment.address,
        etag=environment.etag,
        create_time=timestamp(environment.create_time),
        update_time=timestamp(environment.update_time),
        target=environment_pb2.TargetKind.Value(f"TARGET_KIND_{environment.target}"),
    )


def decode_target(value: int) -> TargetKind:
    """Decode who carries out what is deployed in an environment, or refuse it."""
    if value not in _TARGETS:
        raise invalid_field("environment.target", "must be PROCESS or EXTERNAL")
    return _TARGETS[value]


def check_description(text: str, field: str) -> str:
    """Return a description, or refuse it."""
    if len(text) > MAX_DESCRIPTION:
        raise invalid_field(field, f"must have at most {MAX_DESCRIPTION:,} characters")
    return text


def check_reason(text: str) -> str:
    """Return a reason for the history, or refuse it."""
    if len(text) > MAX_REASON:
        raise invalid_field("reason", f"must have at most {MAX_REASON:,} characters")
    return text


def check_version(text: str) -> str:
    """Check only the size of a version's name: what it may be called is metadata's to say."""
    if not 0 < len(text) <= MAX_NAME:
        raise invalid_field("version", "must be the name of a version, an alias or a model")
    return text


def check_controller(text: str) -> str:
    """Return a controller's own id, or refuse it."""
    if not _CONTROLLER.fullmatch(text):
        raise invalid_field("controller", "must be 1 to 63 characters of [a-z0-9-]")
    return text


def check_address(text: str) -> str:
    """Return where an environment is served, or refuse it; it may be empty."""
    if text and (len(text) > MAX_ADDRESS or not _ADDRESS.fullmatch(text)):
        raise invalid_field("address", "must have the form host:port")
    return text


def encode_verdict(verdict: Verdict) -> environment_pb2.GateVerdict:
    """Encode a gate's verdict."""
    return environment_pb2.GateVerdict(
        gate_id=verdict.gate_id, passed=verdict.passed, explanation=verdict.explanation
    )


def decode_candidate(version: version_pb2.Version) -> Candidate:
    """Read from a version what gates and rollouts need."""
    return Candidate(
        name=version.name,
        artifact=version.artifact,
        environment_digest=version.environment_digest,
        metrics=dict(version.metrics),
        tests_passed=version.tests_passed,
        creator=version.creator,
    )


def decode_goals(model: model_pb2.Model) -> dict[str, Goal]:
    """Read a model's metric goals."""
    goals = {key: gate_codec.decode_goal(value) for key, value in model.metric_goals.items()}
    return {key: goal for key, goal in goals.items() if goal is not None}


def encode_deployment(deployment: Deployment) -> deployment_pb2.Deployment:
    """Encode a deployment."""
    name = deployment.name
    return deployment_pb2.Deployment(
        name=str(name),
        model=f"projects/{name.project}/models/{name.deployment}",
        state=deployment_pb2.DeploymentState.Value(f"DEPLOYMENT_STATE_{deployment.state}"),
        failure=_encode_failure(deployment.failure),
        desired_revision=deployment.desired_revision,
        live_revision=deployment.live_revision,
        variants=_encode_variants(deployment),
        revisions=[encode_revision(revision) for revision in deployment.revisions],
        etag=deployment.etag,
        create_time=timestamp(deployment.create_time),
        update_time=timestamp(deployment.update_time),
        rollout=plan_codec.encode_progress(deployment, datetime.now(UTC)),
        shadow_revision=deployment.shadow_revision,
        warm_revision=deployment.warm_revision,
        preview_revision=deployment.preview_revision,
    )


def encode_revision(revision: Revision) -> deployment_pb2.Revision:
    """Encode a revision."""
    return deployment_pb2.Revision(
        number=revision.number,
        version=revision.version,
        artifact=revision.artifact,
        actor=revision.actor,
        reason=revision.reason,
        cause=deployment_pb2.RevisionCause.Value(f"REVISION_CAUSE_{revision.cause}"),
        create_time=timestamp(revision.create_time),
        verdicts=[_encode_record(verdict) for verdict in revision.verdicts],
        outcome=deployment_pb2.RevisionOutcome.Value(f"REVISION_OUTCOME_{revision.outcome}"),
        failure=_encode_failure(revision.failure),
        live_time=timestamp(revision.live_time) if revision.live_time else None,
        restored_revision=revision.restored_revision,
        plan=plan_codec.encode_plan(revision.plan),
        serving=plan_codec.encode_serving(revision.serving),
        mirror_percent=revision.mirror_percent,
        header_match=plan_codec.encode_header_match(revision.header_match),
        sample=revision.sample,
    )


def decode_sample(message: dataset_pb2.DatasetVersion) -> Sample:
    """Decode sampled requests, summed up, or refuse them; the columns are metadata's to judge."""
    source = message.source
    if message.row_count <= 0:
        raise invalid_field("sample.row_count", "must be positive")
    try:
        start, end = (t.ToDatetime(tzinfo=UTC) for t in (source.start_time, source.end_time))
    except (ValueError, OverflowError):
        raise invalid_field("sample.source", "must say from when until when") from None
    columns = dataset_pb2.DatasetVersion(schema=message.schema).SerializeToString()
    return Sample(message.digest, message.row_count, start, end, columns)


def encode_assignment(name: DeploymentName, assignment: Assignment) -> assignment_pb2.Assignment:
    """Encode an assignment."""
    return assignment_pb2.Assignment(
        deployment=str(name),
        generation=assignment.generation,
        variants=[_encode_assigned(variant) for variant in assignment.variants],
        trace_parent=assignment.trace_parent,
    )


def decode_report(status: assignment_pb2.AssignmentStatus) -> Report:
    """Decode a controller's report, or refuse it."""
    if status.generation <= 0:
        raise invalid_field("status.generation", "must be positive")
    if len(status.variants) > MAX_VARIANTS:
        raise invalid_field("status.variants", f"must be at most {MAX_VARIANTS}")
    variants = tuple(
        _decode_variant(variant, f"status.variants[{index}]")
        for index, variant in enumerate(status.variants)
    )
    if len({variant.revision for variant in variants}) < len(variants):
        raise invalid_field("status.variants", "must not hold a revision twice")
    return Report(status.generation, status.weights_applied, variants)


def _encode_variants(deployment: Deployment) -> list[deployment_pb2.Variant]:
    """List what runs: what is assigned, and what a controller still has to remove."""
    newest = {revision.key: revision for revision in deployment.revisions if revision.running}
    return [_encode_variant(deployment, revision) for revision in newest.values()]


def _encode_variant(deployment: Deployment, revision: Revision) -> deployment_pb2.Variant:
    reported = deployment.report.variant(revision.key) or _UNKNOWN
    assigned = deployment.assignment.weight(revision.key) is not None
    state = reported.state if assigned else VariantState.DRAINING
    return deployment_pb2.Variant(
        revision=revision.number,
        version=revision.version,
        weight=deployment.assignment.weight(revision.key) or 0,
        state=_variant_state(state),
        mirror_percent=revision.mirror_percent,
        ready_replica_count=reported.ready_replica_count,
        restart_count=reported.restart_count,
        traffic=plan_codec.encode_traffic(reported.traffic),
        wanted_replica_count=reported.wanted_replica_count,
        scaling=reported.scaling,
        header_match=plan_codec.encode_header_match(revision.header_match),
    )


def _variant_state(state: VariantState) -> Any:
    return deployment_pb2.VariantState.Value(f"VARIANT_STATE_{state}")


def _encode_record(verdict: Verdict) -> deployment_pb2.GateVerdictRecord:
    return deployment_pb2.GateVerdictRecord(
        gate_id=verdict.gate_id, passed=verdict.passed, explanation=verdict.explanation
    )


def _encode_assigned(variant: AssignedVariant) -> assignment_pb2.AssignedVariant:
    return assignment_pb2.AssignedVariant(
        revision=variant.revision,
        version=variant.version,
        artifact=variant.artifact,
        weight=variant.weight,
        environment_digest=variant.environment_digest,
        mirror_percent=variant.mirror_percent,
        serving=plan_codec.encode_serving(variant.serving),
        header_match=plan_codec.encode_header_match(variant.header_match),
    )


_VARIANT_STATES: dict[int, VariantState] = {_variant_state(state): state for state in VariantState}


def _decode_variant(message: assignment_pb2.VariantStatus, field: str) -> VariantReport:
    if message.revision <= 0:
        raise invalid_field(f"{field}.revision", "must be positive")
    state = _VARIANT_STATES.get(message.state)
    if state is None:
        raise invalid_field(f"{field}.state", "must be set")
    failure = _decode_failure(message.failure, field) if message.HasField("failure") else None
    counted = message.HasField("traffic")
    if len(message.scaling) > MAX_SCALING:
        raise invalid_field(f"{field}.scaling", f"must have at most {MAX_SCALING} characters")
    return VariantReport(
        message.revision,
        state,
        failure,
        ready_replica_count=max(0, message.ready_replica_count),
        restart_count=max(0, message.restart_count),
        traffic=plan_codec.decode_traffic(message.traffic, f"{field}.traffic") if counted else None,
        wanted_replica_count=max(0, message.wanted_replica_count),
        scaling=message.scaling,
    )


def _decode_failure(message: failure_pb2.Failure, field: str) -> Failure:
    if len(message.message) > MAX_FAILURE:
        raise invalid_field(f"{field}.failure.message", f"must have at most {MAX_FAILURE:,}")
    if len(message.reason) > MAX_FAILURE_REASON:
        raise invalid_field(f"{field}.failure.reason", f"must have at most {MAX_FAILURE_REASON}")
    return Failure(message.reason, message.message)


def _encode_failure(failure: Failure | None) -> failure_pb2.Failure | None:
    if failure is None:
        return None
    return failure_pb2.Failure(reason=failure.reason, message=failure.message)
