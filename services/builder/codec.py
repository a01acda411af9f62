"""Between the builder's messages and its domain: pure functions, and what a request must obey."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2
from modelyard.builder.v1 import (
    build_event_pb2,
    build_pb2,
    build_service_pb2,
)
from modelyard.common.v1 import failure_pb2, value_pb2

from services.builder.domain import (
    DEFAULT_TRAIN_TIMEOUT,
    MAX_ALIASES,
    MAX_DIFF_BYTES,
    MAX_LABELS,
    MAX_PARAMS,
    MAX_TRAIN_TIMEOUT,
    Build,
    BuildSpec,
    BuildState,
    Failure,
    Phase,
    PhaseKind,
    PhaseState,
    SourceOrigin,
)
from services.common import pagination
from services.common.errors import invalid_field
from services.common.names import (
    ArtifactName,
    ModelName,
    ProjectName,
    check_id,
    invalid_name,
)
from services.common.outbox import EPOCH

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_MAX_KEY = 250
_MAX_TEXT = 65_536
_MAX_LIST = 1_000
_MAX_DEPTH = 4
_MAX_ORIGIN = 2_048


def new_build(request: build_service_pb2.CreateBuildRequest) -> tuple[str, str, BuildSpec]:
    """Read a new build's project, model and spec."""
    project = ProjectName.parse(request.parent, "parent").project
    model = ModelName.parse(request.build.model, "build.model")
    if model.project != project:
        raise invalid_name("build.model", "must belong to the build's project")
    return project, str(model), _spec(request.build.spec, project)


def _spec(message: build_pb2.BuildSpec, project: str) -> BuildSpec:
    source = ArtifactName.parse(message.source, "build.spec.source")
    if source.project != project:
        raise invalid_name("build.spec.source", "must belong to the build's project")
    if message.entry and not _ENTRY.fullmatch(message.entry):
        raise invalid_field("build.spec.entry", "must be module:Class")
    if message.python_version and not _PYTHON.fullmatch(message.python_version):
        raise invalid_field("build.spec.python_version", "must be such as 3.11")
    return BuildSpec(
        source=str(source),
        entry=message.entry,
        params=_params(message.params),
        python_version=message.python_version,
        skip_tests=message.skip_tests,
        train_timeout_seconds=_train_timeout(message),
        origin=_origin(message.origin) if message.HasField("origin") else None,
        aliases=_aliases(message.aliases),
        labels=_labels(message.labels),
    )


def _train_timeout(message: build_pb2.BuildSpec) -> float | None:
    if not message.HasField("train_timeout"):
        return None
    timeout = message.train_timeout.ToTimedelta()
    if not timedelta() < timeout <= MAX_TRAIN_TIMEOUT:
        problem = f"must be positive and at most {MAX_TRAIN_TIMEOUT.days} days"
        raise invalid_field("build.spec.train_timeout", problem)
    return timeout.total_seconds()


def train_timeout(spec: BuildSpec) -> float:
    """Return how many seconds the train phase may take."""
    return spec.train_timeout_seconds or DEFAULT_TRAIN_TIMEOUT.total_seconds()


def _origin(message: build_pb2.SourceOrigin) -> SourceOrigin:
    texts = (message.repository, message.commit, message.branch)
    if any(len(text) > _MAX_ORIGIN for text in texts):
        raise invalid_field("build.spec.origin", f"must have at most {_MAX_ORIGIN} characters each")
    if len(message.diff.encode()) > MAX_DIFF_BYTES:
        raise invalid_field("build.spec.origin.diff", "must have at most 1 MiB")
    return SourceOrigin(*texts, message.dirty, message.diff)


def _aliases(ids: Any) -> tuple[str, ...]:
    if len(ids) > MAX_ALIASES:
        raise invalid_field("build.spec.aliases", f"must be at most {MAX_ALIASES}")
    return tuple(check_id(alias, "build.spec.aliases") for alias in dict.fromkeys(ids))


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    fit = all(0 < len(key) <= 63 and len(value) <= 255 for key, value in labels.items())
    if len(labels) > MAX_LABELS or not fit:
        problem = f"must be at most {MAX_LABELS}, keys of 1 to 63 and values of 255 characters"
        raise invalid_field("build.spec.labels", problem)
    return dict(labels)


def _params(params: Mapping[str, value_pb2.Value]) -> dict[str, Any]:
    if len(params) > MAX_PARAMS:
        raise invalid_field("build.spec.params", f"must be at most {MAX_PARAMS}")
    if not all(0 < len(key) <= _MAX_KEY for key in params):
        raise invalid_field("build.spec.params", f"keys must have 1 to {_MAX_KEY} characters")
    return {key: _value(params[key], 0) for key in sorted(params)}


def _value(message: value_pb2.Value, depth: int) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid_field("build.spec.params", "each needs a value")
    if kind == "list_value":
        values = message.list_value.values
        if len(values) > _MAX_LIST or depth >= _MAX_DEPTH:
            problem = f"lists have at most {_MAX_LIST} values and nest {_MAX_DEPTH} deep"
            raise invalid_field("build.spec.params", problem)
        return [_value(part, depth + 1) for part in values]
    value = getattr(message, kind)
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise invalid_field("build.spec.params", f"text has at most {_MAX_TEXT} characters")
    return value


def _value_message(value: Any) -> value_pb2.Value:
    match value:
        case bool():
            return value_pb2.Value(bool_value=value)
        case int():
            return value_pb2.Value(int_value=value)
        case float():
            return value_pb2.Value(float_value=value)
        case str():
            return value_pb2.Value(string_value=value)
    values = [_value_message(part) for part in value]
    return value_pb2.Value(list_value=value_pb2.ListValue(values=values))


def list_query(request: build_service_pb2.ListBuildsRequest) -> str:
    """Say what a page token of this request belongs to."""
    return f"builds\n{request.parent}\n{request.filter}"


def page_start(request: build_service_pb2.ListBuildsRequest) -> tuple[datetime, str] | None:
    """Read before which (create time, id) a page begins."""
    key = pagination.decode_token(request.page_token, list_query(request), tuple[int, str])
    return None if key is None else (EPOCH + timedelta(microseconds=key[0]), key[1])


def page(
    request: build_service_pb2.ListBuildsRequest, builds: Sequence[Build], size: int
) -> build_service_pb2.ListBuildsResponse:
    """Write a page of builds, given one more than it holds when there are more."""
    response = build_service_pb2.ListBuildsResponse(builds=[build(b) for b in builds[:size]])
    if len(builds) > size:
        last = builds[size - 1]
        time_us = (last.create_time - EPOCH) // timedelta(microseconds=1)
        key = (time_us, last.name.build)
        response.next_page_token = pagination.encode_token(list_query(request), key)
    return response


def build(found: Build) -> build_pb2.Build:
    """Write a build."""
    message = build_pb2.Build(
        name=str(found.name),
        model=found.model,
        spec=_spec_message(found.spec),
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
    if found.winner is not None:
        message.artifact = found.winner.artifact
    return message


def _spec_message(spec: BuildSpec) -> build_pb2.BuildSpec:
    message = build_pb2.BuildSpec(
        source=spec.source,
        entry=spec.entry,
        params={key: _value_message(value) for key, value in spec.params.items()},
        python_version=spec.python_version,
        skip_tests=spec.skip_tests,
        aliases=spec.aliases,
        labels=spec.labels,
    )
    if spec.train_timeout_seconds is not None:
        message.train_timeout.CopyFrom(duration(spec.train_timeout_seconds))
    if spec.origin is not None:
        origin = spec.origin
        message.origin.repository, message.origin.commit = origin.repository, origin.commit
        message.origin.branch, message.origin.dirty = origin.branch, origin.dirty
        message.origin.diff = origin.diff
    return message


def _phase_message(phase: Phase) -> build_pb2.Phase:
    return build_pb2.Phase(
        kind=kind_number(phase.kind),
        state=phase_state_number(phase.state),
        failure=_failure_message(phase.failure),
        start_time=timestamp(phase.start_time),
        end_time=timestamp(phase.end_time),
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


def duration(seconds: float) -> duration_pb2.Duration:
    """Write a duration."""
    whole = math.floor(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


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
