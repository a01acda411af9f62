"""Between messages and domain: runs, batches, metric points."""

from __future__ import annotations

import re
from array import array

from modelyard.metadata.v1 import model_pb2, run_pb2, run_service_pb2

from services.common.errors import invalid_field
from services.common.names import (
    ArtifactName,
    DatasetVersionName,
    ModelName,
    RunName,
    check_id,
    project_of,
)
from services.metadata import limits
from services.metadata.listing import Page
from services.metadata.models.domain import MetricGoal
from services.metadata.runs.domain import (
    METRICS_PER_RUN,
    POINTS_PER_BATCH,
    Batch,
    CodeSource,
    DatasetUse,
    MetricColumn,
    MetricSample,
    MetricSummary,
    Run,
    RunDraft,
    RunEdit,
    RunState,
    RuntimeEnvironment,
    Sampling,
)
from services.metadata.values import Failure
from services.metadata.wire import failure, failure_from, stamp, value, value_from

SHORT = 1_000
NAME = 512
DIFF = 1_048_576
PACKAGES = 5_000
DATASETS = 100
DEVICES = 256
SAMPLED_KEYS = 100
SAMPLE_DEFAULT = 1_000
SAMPLE_MAXIMUM = 10_000
SAMPLE_MINIMUM = 4
PATHS = ("display_name", "notes", "tags")
MAX_SEQUENCE = 2**63 - 1
MAX_TIME_US = 253_402_300_799_999_999

# Keys that were found to be in order: a run sends the same ones again and again.
_KNOWN_KEYS: set[str] = set()
_WRITER = re.compile(r"[a-z0-9-]{1,63}")
_CODE_LINES = ("repository", "commit", "branch", "entry_point")
_ENVIRONMENT_LINES = (
    "python_version",
    "python_implementation",
    "platform",
    "cpu",
    "gpu_driver",
    "hostname",
)


def new_run(request: run_service_pb2.CreateRunRequest, parent: ModelName) -> tuple[str, RunDraft]:
    """Return the id (empty: to be allotted) and what the caller says of a new run."""
    message = request.run
    build = limits.line(message.build, "run.build", NAME)
    if build and project_of(build, "run.build") != parent.project:
        raise invalid_field("run.build", "must be of the model's project")
    draft = RunDraft(
        display_name=limits.line(message.display_name, "run.display_name", limits.DISPLAY_NAME),
        tags=limits.labels(message.tags, "run.tags"),
        build=build,
        notes=limits.lines(message.notes, "run.notes", limits.DESCRIPTION),
        group=check_id(message.group, "run.group") if message.group else "",
    )
    return check_id(request.run_id, "run_id") if request.run_id else "", draft


def run(found: Run) -> run_pb2.Run:
    """Return a run's message."""
    message = run_pb2.Run(
        name=str(found.name),
        notes=found.notes,
        group=found.group,
        display_name=found.display_name,
        state=run_pb2.RunState.Value(f"RUN_STATE_{found.state}"),
        failure=failure(found.failure),
        tags=found.tags,
        params={key: value(param) for key, param in found.params.items()},
        metrics=[_summary(metric) for metric in found.metrics],
        code=_code(found.code),
        environment=_environment(found.environment),
        datasets=[
            run_pb2.DatasetUse(role=use.role, dataset_version=use.dataset_version)
            for use in found.datasets
        ],
        image=found.image,
        build=found.build,
        dropped_point_count=found.dropped,
        creator=found.creator,
        etag=str(found.revision),
    )
    stamp(message.create_time, found.create_time)
    stamp(message.delete_time, found.delete_time)
    stamp(message.end_time, found.end_time)
    stamp(message.heartbeat_time, found.heartbeat_time)
    return message


def edit(message: run_pb2.Run) -> RunEdit:
    """Return the new values of what may be changed of a run."""
    return RunEdit(
        display_name=limits.line(message.display_name, "run.display_name", limits.DISPLAY_NAME),
        notes=limits.lines(message.notes, "run.notes", limits.DESCRIPTION),
        tags=limits.labels(message.tags, "run.tags"),
    )


def edit_paths(request: run_service_pb2.UpdateRunRequest) -> tuple[str, ...]:
    """Return which fields of a run to change: the mask's, or all that are set."""
    paths = request.update_mask.paths
    if not set(paths) <= set(PATHS):
        raise invalid_field("update_mask", f"must name some of {', '.join(PATHS)}")
    if paths:
        return tuple(paths)
    return tuple(path for path in PATHS if getattr(request.run, path))


def encoded(found: Run) -> bytes:
    """Return a run's message, encoded."""
    return run(found).SerializeToString()


def page(found: Page[bytes]) -> run_service_pb2.ListRunsResponse:
    """Return the message of a page of encoded runs."""
    message = run_service_pb2.ListRunsResponse(
        next_page_token=found.next_token, watch_cursor=found.watch_cursor
    )
    for one in found.items:
        message.runs.add().MergeFromString(one)
    return message


def batch(message: run_service_pb2.IngestRunDataRequest, stream: RunName | None) -> Batch:
    """Read a batch; all of a stream belong to the run of its first."""
    name = RunName.parse(message.run, "run")
    if stream is not None and name != stream:
        raise invalid_field("run", "must be the same in all messages of a stream")
    start, end = message.start_sequence, message.end_sequence
    if not 0 <= start <= end <= MAX_SEQUENCE:
        raise invalid_field("end_sequence", "must not be less than start_sequence, nor that than 0")
    if len(message.metrics) > METRICS_PER_RUN:
        raise invalid_field("metrics", f"must not be more than {METRICS_PER_RUN} columns")
    if message.dropped_point_count < 0:
        raise invalid_field("dropped_point_count", "must not be negative")
    return Batch(
        run=name,
        writer=writer(message.writer),
        start=start,
        end=end,
        params={
            limits.line(key, "params", limits.KEY, required=True): value_from(param, "params")
            for key, param in message.params.items()
        },
        columns=_columns(message),
        tags=limits.labels(message.tags, "tags"),
        code=_code_from(message.code) if message.HasField("code") else None,
        environment=(
            _environment_from(message.environment) if message.HasField("environment") else None
        ),
        datasets=_uses(message, name.project),
        image=limits.line(message.image, "image", SHORT),
        dropped=message.dropped_point_count,
        goals=_goals(message),
    )


def writer(text: str) -> str:
    """Return a writer's id, or refuse it."""
    if not _WRITER.fullmatch(text):
        raise invalid_field("writer", "must be at most 63 characters of [a-z0-9-]")
    return text


def outcome(request: run_service_pb2.FinishRunRequest) -> tuple[RunState, Failure | None]:
    """Return how a run ended, and why if it failed."""
    ends = {
        run_pb2.RUN_STATE_SUCCEEDED: RunState.SUCCEEDED,
        run_pb2.RUN_STATE_FAILED: RunState.FAILED,
        run_pb2.RUN_STATE_CANCELLED: RunState.CANCELLED,
    }
    state = ends.get(request.state)
    if state is None:
        raise invalid_field("state", "must be SUCCEEDED, FAILED or CANCELLED")
    if not request.HasField("failure"):
        return state, None
    if state is not RunState.FAILED:
        raise invalid_field("failure", "must be unset unless the state is FAILED")
    return state, failure_from(request.failure, "failure")


def points(found: MetricColumn) -> run_pb2.MetricColumn:
    """Return a column's message."""
    return run_pb2.MetricColumn(
        key=found.key, steps=found.steps, times_us=found.times_us, values=found.values
    )


def sample(found: MetricSample) -> run_service_pb2.MetricSample:
    """Return a sample's message."""
    return run_service_pb2.MetricSample(points=points(found.points), point_count=found.count)


def sampling(request: run_service_pb2.SampleMetricPointsRequest) -> Sampling:
    """Return what a chart wants of a run's metrics."""
    if len(request.keys) > SAMPLED_KEYS:
        raise invalid_field("keys", f"must not be more than {SAMPLED_KEYS}")
    wanted = request.max_points or SAMPLE_DEFAULT
    if wanted < SAMPLE_MINIMUM:
        raise invalid_field("max_points", f"must be at least {SAMPLE_MINIMUM}")
    return Sampling(
        keys=tuple(limits.line(key, "keys", limits.KEY, required=True) for key in request.keys),
        limit=SAMPLED_KEYS,
        points=min(wanted, SAMPLE_MAXIMUM),
        start=request.start_step if request.HasField("start_step") else None,
        end=request.end_step if request.HasField("end_step") else None,
    )


def _column(message: run_pb2.MetricColumn) -> MetricColumn:
    key = message.key
    if key not in _KNOWN_KEYS:
        limits.line(key, "metrics.key", limits.KEY, required=True)
        if len(_KNOWN_KEYS) >= METRICS_PER_RUN:
            _KNOWN_KEYS.clear()
        _KNOWN_KEYS.add(key)
    # Copied as slices: an array made of the message's own list takes twice as long.
    steps, times, values = message.steps[:], message.times_us[:], message.values[:]
    if not len(steps) == len(times) == len(values):
        raise invalid_field("metrics", "must hold as many steps as times and values")
    if times and max(times) > MAX_TIME_US:
        raise invalid_field("metrics.times_us", "must lie before the year 10000")
    return MetricColumn(key, array("q", steps), array("Q", times), array("d", values))


def _columns(message: run_service_pb2.IngestRunDataRequest) -> list[MetricColumn]:
    columns = [_column(column) for column in message.metrics]
    counts = [len(column.steps) for column in columns]
    if sum(counts) > POINTS_PER_BATCH:
        raise invalid_field("metrics", f"must hold at most {POINTS_PER_BATCH} points")
    return columns if all(counts) else [column for column in columns if column.steps]


def _goals(message: run_service_pb2.IngestRunDataRequest) -> dict[str, MetricGoal]:
    goals: dict[str, MetricGoal] = {}
    for key, goal in message.metric_goals.items():
        limits.line(key, "metric_goals", limits.KEY, required=True)
        if goal not in (model_pb2.METRIC_GOAL_MAXIMIZE, model_pb2.METRIC_GOAL_MINIMIZE):
            raise invalid_field("metric_goals", "must be MAXIMIZE or MINIMIZE")
        goals[key] = MetricGoal(model_pb2.MetricGoal.Name(goal).removeprefix("METRIC_GOAL_"))
    return goals


def _uses(message: run_service_pb2.IngestRunDataRequest, project: str) -> list[DatasetUse]:
    if len(message.datasets) > DATASETS:
        raise invalid_field("datasets", f"must not be more than {DATASETS}")
    uses = []
    for use in message.datasets:
        name = DatasetVersionName.parse(use.dataset_version, "datasets.dataset_version")
        if name.project != project:
            raise invalid_field("datasets.dataset_version", "must be of the run's project")
        role = limits.line(use.role, "datasets.role", limits.LABEL_KEY, required=True)
        uses.append(DatasetUse(role, str(name)))
    return uses


def _code_from(message: run_pb2.CodeSource) -> CodeSource:
    if message.snapshot:
        ArtifactName.parse(message.snapshot, "code.snapshot")
    found = {
        name: limits.line(getattr(message, name), f"code.{name}", SHORT) for name in _CODE_LINES
    }
    diff = limits.source(message.diff, "code.diff", DIFF)
    return CodeSource(dirty=message.dirty, diff=diff, snapshot=message.snapshot, **found)


def _code(found: CodeSource | None) -> run_pb2.CodeSource | None:
    if found is None:
        return None
    return run_pb2.CodeSource(
        repository=found.repository,
        commit=found.commit,
        branch=found.branch,
        dirty=found.dirty,
        diff=found.diff,
        snapshot=found.snapshot,
        entry_point=found.entry_point,
    )


def _environment_from(message: run_pb2.RuntimeEnvironment) -> RuntimeEnvironment:
    if len(message.packages) > PACKAGES:
        raise invalid_field("environment.packages", f"must not be more than {PACKAGES}")
    if len(message.gpus) > DEVICES:
        raise invalid_field("environment.gpus", f"must not be more than {DEVICES}")
    found = {
        name: limits.line(getattr(message, name), f"environment.{name}", SHORT)
        for name in _ENVIRONMENT_LINES
    }
    return RuntimeEnvironment(
        cpu_count=message.cpu_count,
        memory_bytes=message.memory_bytes,
        gpus=tuple(limits.line(gpu, "environment.gpus", SHORT) for gpu in message.gpus),
        packages=tuple((_package(p.name), _package(p.version)) for p in message.packages),
        **found,
    )


def _package(text: str) -> str:
    return limits.line(text, "environment.packages", SHORT)


def _environment(found: RuntimeEnvironment | None) -> run_pb2.RuntimeEnvironment | None:
    if found is None:
        return None
    return run_pb2.RuntimeEnvironment(
        python_version=found.python_version,
        python_implementation=found.python_implementation,
        platform=found.platform,
        cpu=found.cpu,
        cpu_count=found.cpu_count,
        memory_bytes=found.memory_bytes,
        gpus=found.gpus,
        gpu_driver=found.gpu_driver,
        packages=[run_pb2.Package(name=name, version=text) for name, text in found.packages],
        hostname=found.hostname,
    )


def _summary(found: MetricSummary) -> run_pb2.MetricSummary:
    message = run_pb2.MetricSummary(
        key=found.key, count=found.count, last=found.last, last_step=found.last_step
    )
    if found.min is not None and found.max is not None:
        message.min, message.max = found.min, found.max
    if found.goal is not None:
        message.goal = model_pb2.MetricGoal.Value(f"METRIC_GOAL_{found.goal}")
    if found.best is not None:
        message.best = found.best
    return message
