"""Between the builder's messages and its domain: pure functions, and what a request must obey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from google.protobuf import timestamp_pb2
from modelyard.builder.v1 import (
    build_event_pb2,
    build_pb2,
    build_service_pb2,
)
from modelyard.common.v1 import failure_pb2

from services.builder import spec_codec
from services.builder.domain import (
    Attempt,
    Build,
    BuildState,
    Failure,
    Phase,
    PhaseState,
    TestCounts,
)
from services.builder.spec import BuildSpec, PhaseKind
from services.common.listing import pagination
from services.common.names import (
    ModelName,
    ProjectName,
    invalid_name,
)
from services.common.sql.outbox import EPOCH


def new_build(request: build_service_pb2.CreateBuildRequest) -> tuple[str, str, BuildSpec]:
    """Read a new build's project, model and spec."""
    project = ProjectName.parse(request.parent, "parent").project
    model = ModelName.parse(request.build.model, "build.model")
    if model.project != project:
        raise invalid_name("build.model", "must belong to the build's project")
    spec = spec_codec.spec(request.build.spec, project)
    if spec.reproduces and not spec.reproduces.startswith(f"{model}/versions/"):
        raise invalid_name("build.spec.reproduces", "must be a version of the build's model")
    return project, str(model), spec


def list_query(request: build_service_pb2.ListBuildsRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"builds\n{request.parent}\n{request.filter}"


def page_start(request: build_service_pb2.ListBuildsRequest) -> tuple[datetime, str] | None:
    """Read before which (create time, id) a page begins."""
    key = pagination.decode_token(
        request.page_token, list_query(request), tuple[pagination.Microseconds, str]
    )
    return None if key is None else (EPOCH + timedelta(microseconds=key[0]), key[1])


def page(
    request: build_service_pb2.ListBuildsRequest, builds: Sequence[Build], size: int
) -> build_service_pb2.ListBuildsResponse:
    """Write a page of builds, given one more than it holds when there are more."""
    response = build_service_pb2.ListBuildsResponse(builds=[_listed(b) for b in builds[:size]])
    if len(builds) > size:
        last = builds[size - 1]
        time_us = (last.create_time - EPOCH) // timedelta(microseconds=1)
        key = (time_us, last.name.build)
        response.next_page_token = pagination.encode_token(list_query(request), key)
    return response


def _listed(found: Build) -> build_pb2.Build:
    """Write a build as lists have it: a page of differences could be too large for a message."""
    message = build(found)
    if message.spec.HasField("origin"):
        message.spec.origin.ClearField("diff")
    return message


def build(found: Build) -> build_pb2.Build:
    """Write a build."""
    message = build_pb2.Build(
        name=str(found.name),
        model=found.model,
        spec=spec_codec.spec_message(found.spec),
        state=_state(found.state),
        failure=_failure_message(found.failure),
        phases=[_phase_message(phase) for phase in found.phases],
        attempt=found.attempt,
        run=found.run,
        version=found.version,
        worker=found.worker,
        creator=found.creator,
        create_time=timestamp(found.create_time),
        start_time=timestamp(found.start_time),
        end_time=timestamp(found.end_time),
    )
    message.source = found.source
    if found.origin is not None:  # the difference is in the spec, once
        message.origin.CopyFrom(spec_codec.origin_message(replace(found.origin, diff="")))
    message.past_attempts.extend(_attempt_message(attempt) for attempt in found.past_attempts)
    if found.waiting is not None:
        reason = build_pb2.WaitingReason.Value(f"WAITING_REASON_{found.waiting.reason}")
        message.waiting.reason, message.waiting.message = reason, found.waiting.message
    if found.winner is not None:
        message.artifact, message.evidence = found.winner.artifact, found.winner.evidence
        message.image, message.image_digest = found.winner.image, found.winner.image_digest
        message.image_reference = found.winner.image_reference
    return message


def _attempt_message(attempt: Attempt) -> build_pb2.Attempt:
    return build_pb2.Attempt(
        attempt=attempt.number,
        run=attempt.run,
        worker=attempt.worker,
        failure=_failure_message(attempt.failure),
        start_time=timestamp(attempt.start_time),
        end_time=timestamp(attempt.end_time),
    )


def _phase_message(phase: Phase) -> build_pb2.Phase:
    return build_pb2.Phase(
        kind=kind_number(phase.kind),
        state=phase_state_number(phase.state),
        failure=_failure_message(phase.failure),
        start_time=timestamp(phase.start_time),
        end_time=timestamp(phase.end_time),
        tests=_tests_message(phase.tests),
    )


def _tests_message(tests: TestCounts | None) -> build_pb2.TestCounts | None:
    if tests is None:
        return None
    return build_pb2.TestCounts(
        passed_count=tests.passed, failed_count=tests.failed, skipped_count=tests.skipped
    )


def state_event(
    moment: datetime,
    *,
    attempt: int,
    state: BuildState,
    failure: Failure | None,
) -> bytes:
    """Write the batch that says that a build changed its state."""
    event = build_event_pb2.BuildEvent(time=timestamp(moment), attempt=attempt)
    event.state_changed.state = _state(state)
    if failure is not None:
        event.state_changed.failure.CopyFrom(_failure_message(failure))  # type: ignore[arg-type]
    return bytes(build_event_pb2.BuildEventBatch(events=[event]).SerializeToString())


def phase_event(moment: datetime, *, attempt: int, phase: Phase) -> bytes:
    """Write the batch that says that a phase started or ended."""
    event = build_event_pb2.BuildEvent(
        time=timestamp(moment), attempt=attempt, phase=kind_number(phase.kind)
    )
    event.phase_changed.state = phase_state_number(phase.state)
    if phase.failure is not None:
        event.phase_changed.failure.CopyFrom(_failure_message(phase.failure))  # type: ignore[arg-type]
    return bytes(build_event_pb2.BuildEventBatch(events=[event]).SerializeToString())


def stored_events(batch: bytes, cursor: str) -> bytes:
    """Write a stream's message from a stored batch, undecoded: both begin with the events."""
    end = build_service_pb2.StreamBuildEventsResponse(cursor=cursor).SerializeToString()
    return batch + bytes(end)


def timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    """Write a moment."""
    if moment is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(moment)
    return message


def _failure_message(failure: Failure | None) -> failure_pb2.Failure | None:
    if failure is None:
        return None
    return failure_pb2.Failure(reason=failure.reason.value, message=failure.message)


def _state(state: BuildState) -> build_pb2.BuildState.ValueType:
    return build_pb2.BuildState.Value(f"BUILD_STATE_{state}")


def kind_number(kind: PhaseKind) -> build_pb2.PhaseKind.ValueType:
    """Write which phase is meant."""
    return build_pb2.PhaseKind.Value(f"PHASE_KIND_{kind}")


def phase_state_number(state: PhaseState) -> build_pb2.PhaseState.ValueType:
    """Write where a phase stands."""
    return build_pb2.PhaseState.Value(f"PHASE_STATE_{state}")
