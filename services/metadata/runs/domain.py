"""Runs, their metrics and ingredients, and the rules of their states."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from services.common.errors import Reason, ServiceError, wrong_state
from services.common.names import RunName
from services.metadata.models.domain import MetricGoal
from services.metadata.values import Failure, ParamValue

PARAMS_PER_RUN = 10_000
METRICS_PER_RUN = 10_000
POINTS_PER_BATCH = 10_000
HEARTBEAT_LOST = "HEARTBEAT_LOST"


class RunState(StrEnum):
    """Where a training execution stands."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class CodeSource:
    """The code that ran: a commit, and what differed from it."""

    repository: str = ""
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    diff: str = ""
    snapshot: str = ""
    entry_point: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeEnvironment:
    """What the code ran in; packages are (name, version)."""

    python_version: str = ""
    python_implementation: str = ""
    platform: str = ""
    cpu: str = ""
    cpu_count: int = 0
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    gpu_driver: str = ""
    packages: tuple[tuple[str, str], ...] = ()
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """A dataset version that a run used, and as what."""

    role: str
    dataset_version: str


@dataclass(frozen=True, slots=True)
class RunDraft:
    """What the caller says of a new run."""

    display_name: str
    tags: Mapping[str, str]
    build: str
    notes: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class RunEdit:
    """The new values of what may be changed of a run."""

    display_name: str
    notes: str
    tags: Mapping[str, str]


# Of these there are thousands in a batch: a Struct is made in a tenth of a dataclass's time.
class MetricSummary(msgspec.Struct, frozen=True, gc=False):
    """What a metric's series comes to; NaN counts, but is neither least nor greatest."""

    key: str
    count: int
    last: float
    last_step: int
    min: float | None
    max: float | None
    # As its model says; None when it says nothing.
    goal: MetricGoal | None = None

    @property
    def best(self) -> float | None:
        """Return the least or the greatest value, as the goal says; None without a goal."""
        if self.goal is None:
            return None
        return self.max if self.goal is MetricGoal.MAXIMIZE else self.min

    def then(self, later: MetricSummary) -> MetricSummary:
        """Return the summary of this series followed by more of it."""
        moved = later.last_step >= self.last_step
        return MetricSummary(
            self.key,
            self.count + later.count,
            later.last if moved else self.last,
            later.last_step if moved else self.last_step,
            self.min if later.min is None else _least(self.min, later.min),
            self.max if later.max is None else _greatest(self.max, later.max),
            self.goal,
        )


class MetricColumn(msgspec.Struct, frozen=True, gc=False):
    """A run of points of one metric; the lists have one length."""

    key: str
    steps: array[int]
    times_us: array[int]
    values: array[float]

    def summary(self) -> MetricSummary:
        """Sum up the points; there is at least one."""
        steps, values = self.steps, self.values
        count, last = len(values), len(values) - 1
        if count == 1:
            number = None if math.isnan(values[0]) else values[0]
            return MetricSummary(self.key, 1, values[0], steps[0], number, number)
        greatest = max(steps)
        while steps[last] != greatest:
            last -= 1
        numbers: Sequence[float] = values
        if math.isnan(sum(values)):  # a NaN, or infinities of both signs
            numbers = [value for value in values if not math.isnan(value)]
        return MetricSummary(
            key=self.key,
            count=count,
            last=values[last],
            last_step=steps[last],
            min=min(numbers, default=None),
            max=max(numbers, default=None),
        )


def _least(first: float | None, second: float) -> float:
    return second if first is None or second < first else first


def _greatest(first: float | None, second: float) -> float:
    return second if first is None or second > first else first


@dataclass(frozen=True, slots=True)
class MetricSample:
    """What was chosen of a metric's points for a chart, and from how many."""

    points: MetricColumn
    count: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a chart wants: which metrics (none: all, up to `limit`), how many points, which steps.

    Steps go from `start` to before `end`.
    """

    keys: tuple[str, ...]
    limit: int
    points: int
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one writer has to say of a run, and its place among what it said before."""

    run: RunName
    writer: str
    start: int
    end: int
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    columns: Sequence[MetricColumn] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    code: CodeSource | None = None
    environment: RuntimeEnvironment | None = None
    datasets: Sequence[DatasetUse] = ()
    image: str = ""
    dropped: int = 0
    goals: Mapping[str, MetricGoal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One training execution."""

    name: RunName
    display_name: str
    state: RunState
    failure: Failure | None
    tags: dict[str, str]
    params: dict[str, ParamValue]
    metrics: tuple[MetricSummary, ...]
    code: CodeSource | None
    environment: RuntimeEnvironment | None
    datasets: tuple[DatasetUse, ...]
    image: str
    build: str
    dropped: int
    creator: str
    create_time: datetime
    end_time: datetime | None
    heartbeat_time: datetime
    revision: int
    notes: str = ""
    group: str = ""
    delete_time: datetime | None = None


def started(name: RunName, draft: RunDraft, *, creator: str, now: datetime) -> Run:
    """Return a run as it is when it has just been started."""
    return Run(
        name=name,
        display_name=draft.display_name,
        state=RunState.RUNNING,
        failure=None,
        tags=dict(draft.tags),
        params={},
        metrics=(),
        code=None,
        environment=None,
        datasets=(),
        image="",
        build=draft.build,
        dropped=0,
        creator=creator,
        create_time=now,
        end_time=None,
        heartbeat_time=now,
        revision=1,
        notes=draft.notes,
        group=draft.group,
    )


def is_presumed(state: RunState, failure_reason: str | None) -> bool:
    """Say whether a run only counts as FAILED because its client was not heard of."""
    return state is RunState.FAILED and failure_reason == HEARTBEAT_LOST


def sequence_gap(acknowledged: int) -> ServiceError:
    """Say that a batch does not follow the last one acknowledged."""
    return ServiceError(
        Reason.SEQUENCE_GAP,
        f"the batch does not follow on; go on at {acknowledged}",
        acknowledged_sequence=str(acknowledged),
    )


def run_deleted(name: RunName) -> ServiceError:
    """Say that a run was deleted, so that nothing more is kept of it."""
    return wrong_state(name, "DELETED", f"{name} is deleted; restore it first")


def param_changed(key: str) -> ServiceError:
    """Say that a parameter was logged before with another value."""
    return ServiceError(
        Reason.PARAM_CHANGED,
        f"the parameter {key} was logged before with another value; a parameter never changes",
        key=key,
    )
