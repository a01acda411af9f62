"""Between the messages that workers send and the domain: pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from modelyard.builder.v1 import build_event_pb2, build_pb2, worker_service_pb2
from modelyard.common.v1 import failure_pb2

from services.builder import codec, spec_codec
from services.builder.domain import (
    MAX_BATCH_BYTES,
    MAX_CARD,
    MAX_FAILURE_MESSAGE,
    MAX_LICENSE,
    MAX_REFERENCE,
    MAX_WAIT,
    Build,
    Failure,
    FailureReason,
    FetchedSource,
    Lease,
    Phase,
    PhaseState,
    TestCounts,
    Winner,
)
from services.builder.queue.domain import Ask
from services.builder.spec import DEFAULT_POOL, PhaseKind
from services.common.durations import length_of
from services.common.errors import Reason, ServiceError, invalid_field
from services.common.names import ArtifactName, BuildName, SecretName, check_id, invalid_name

MAX_BUILDS = 1_000
_ANY_WAIT = timedelta(days=365)  # longer than any wait is
_WORKER = re.compile(r"[a-z0-9-]{1,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_KINDS_BY_NUMBER = {codec.kind_number(kind): kind for kind in PhaseKind}
_PHASE_STATES_BY_NUMBER = {codec.phase_state_number(state): state for state in PhaseState}


def lease(message: worker_service_pb2.Lease) -> Lease:
    """Read a claim."""
    return Lease(BuildName.parse(message.build, "lease.build"), message.attempt, message.fence)


def ask(request: worker_service_pb2.LeaseBuildRequest) -> Ask:
    """Read which worker asks for a build, and what it has."""
    if not _WORKER.fullmatch(request.worker):
        raise invalid_field("worker", "must be 1 to 63 characters of a-z, 0-9 and -")
    if not 0 <= request.max_builds <= MAX_BUILDS:
        raise invalid_field("max_builds", f"must be 0 to {MAX_BUILDS}")
    return Ask(
        worker=request.worker,
        pool=check_id(request.pool or DEFAULT_POOL, "pool"),
        max_builds=request.max_builds or 1,
        free=spec_codec.resources(request.capacity, "capacity"),
        total=spec_codec.resources(request.total, "total"),
    )


def wait_seconds(message: duration_pb2.Duration) -> float:
    """Read how long a worker wants to wait for an answer."""
    return min(length_of(message, "wait", most=_ANY_WAIT), MAX_WAIT).total_seconds()


def leased(
    found: Build, *, expire_time: datetime, seconds: float
) -> worker_service_pb2.LeaseBuildResponse:
    """Write a leased build."""
    return worker_service_pb2.LeaseBuildResponse(
        lease=worker_service_pb2.Lease(
            build=str(found.name), attempt=found.attempt, fence=found.fence
        ),
        build=codec.build(found),
        delegation=found.delegation.credential,
        expire_time=codec.timestamp(expire_time),
        duration=spec_codec.duration(seconds),
    )


def reported_phase(
    request: worker_service_pb2.ReportPhaseRequest,
) -> Phase:
    """Read what a worker says about a phase."""
    if request.kind not in _KINDS_BY_NUMBER:
        raise invalid_field("kind", "must be one of the six phases")
    state = _PHASE_STATES_BY_NUMBER.get(request.state, PhaseState.PENDING)
    if state is PhaseState.PENDING:
        raise invalid_field("state", "must be RUNNING, SUCCEEDED, FAILED, SKIPPED or CANCELLED")
    found = failure(request.failure) if request.HasField("failure") else None
    if (found is not None) != (state is PhaseState.FAILED):
        raise invalid_field("failure", "must be set if and only if the phase FAILED")
    kind = _KINDS_BY_NUMBER[request.kind]
    return Phase(
        kind, state, found, tests=_tests(request.tests, kind) if request.HasField("tests") else None
    )


def _tests(message: build_pb2.TestCounts, kind: PhaseKind) -> TestCounts:
    counts = message.passed_count, message.failed_count, message.skipped_count
    if kind is not PhaseKind.TEST or min(counts) < 0:
        raise invalid_field("tests", "must be counts of the test phase")
    return TestCounts(*counts)


def event_batch(request: worker_service_pb2.ReportEventsRequest) -> bytes:
    """Read a batch of events, checked but not changed."""
    if len(request.batch) > MAX_BATCH_BYTES:
        maximum = str(MAX_BATCH_BYTES)
        message = f"a batch has at most {maximum} bytes"
        raise ServiceError(
            Reason.LIMIT_EXCEEDED, message, limit="event_batch_bytes", maximum=maximum
        )
    if request.sequence < 1:
        raise invalid_field("sequence", "counts from 1")
    try:
        build_event_pb2.BuildEventBatch.FromString(request.batch)
    except DecodeError:
        raise invalid_field("batch", "must be a serialised BuildEventBatch") from None
    return request.batch


def fetched(request: worker_service_pb2.ReportSourceRequest, project: str) -> FetchedSource:
    """Read what a git source came to."""
    source = _artifact(request.source, "source", project)
    return FetchedSource(source, spec_codec.origin(request.origin, "origin"))


def secrets(values: Mapping[SecretName, str]) -> worker_service_pb2.GetBuildSecretsResponse:
    """Write the values of secrets."""
    return worker_service_pb2.GetBuildSecretsResponse(
        secrets=[
            worker_service_pb2.SecretValue(secret=str(name), value=value)
            for name, value in values.items()
        ]
    )


def failure(message: failure_pb2.Failure) -> Failure:
    """Read why something failed."""
    if message.reason not in set(FailureReason):
        raise invalid_field("failure.reason", f"must be one of {', '.join(FailureReason)}")
    return Failure(FailureReason(message.reason), message.message[:MAX_FAILURE_MESSAGE])


def winner(request: worker_service_pb2.RegisterBuildRequest, project: str) -> Winner:
    """Read what the attempt that won brought."""
    if request.environment_digest and not _DIGEST.fullmatch(request.environment_digest):
        raise invalid_field("environment_digest", "must be 64 lowercase hex digits")
    for field, maximum in (("card", MAX_CARD), ("license", MAX_LICENSE)):
        if len(getattr(request, field)) > maximum:
            raise invalid_field(field, f"must not be longer than {maximum} characters")
    image_digest = request.image_digest
    if bool(request.image) != bool(image_digest):
        raise invalid_field("image_digest", "must be set if and only if image is")
    if image_digest and not _IMAGE_DIGEST.fullmatch(image_digest):
        raise invalid_field("image_digest", "must be sha256: and 64 lowercase hex digits")
    reference = request.image_reference
    if reference and (len(reference) > MAX_REFERENCE or not reference.endswith(f"@{image_digest}")):
        raise invalid_field("image_reference", "must be registry/repository@ and image_digest")
    return Winner(
        artifact=_artifact(request.artifact, "artifact", project),
        environment_digest=request.environment_digest,
        tests_passed=request.tests_passed,
        card=request.card,
        license=request.license,
        image=_artifact(request.image, "image", project) if request.image else "",
        image_digest=image_digest,
        evidence=_artifact(request.evidence, "evidence", project) if request.evidence else "",
        image_reference=reference,
    )


def _artifact(text: str, field: str, project: str) -> str:
    name = ArtifactName.parse(text, field)
    if name.project != project:
        raise invalid_name(field, "must belong to the build's project")
    return str(name)
