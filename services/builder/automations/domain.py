"""Automations and their executions as plain values, and the limits of both."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from services.builder.domain import Delegation
from services.builder.spec import BuildSpec
from services.common.names import AutomationName, ExecutionName

MAX_AUTOMATIONS = 1_000
MAX_DESCRIPTION = 4_096
MAX_CONDITIONS = 64
MAX_NEWEST_DATA = 64
MAX_METRIC = 250
MAX_COLUMNS = 256
MAX_COLUMN = 256
MAX_ROLE = 63
TRAINING_ROLE = "train"
MAX_KEY = 128
MAX_WAITING = 100
MAX_CAUGHT_UP = 100
MAX_REPORTS = 1_000
KEPT_EXECUTIONS = 1_000
MAX_EXPLANATION = 4_000
LEAST_INTERVAL = timedelta(seconds=10)
GREATEST_INTERVAL = timedelta(days=366)
GREATEST_WINDOW = timedelta(days=366)
DEFAULT_WINDOW = timedelta(minutes=10)

_NAMESPACE = uuid.UUID("5a9d6a2e-3b0c-4b5b-8c43-2f1f4f0f7f5d")


class AutomationState(StrEnum):
    """Say whether an automation's trigger is heard."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    SUSPENDED = "SUSPENDED"


class CatchUp(StrEnum):
    """Say what becomes of occurrences of time that came due while no builder ran."""

    SKIP = "SKIP"
    LATEST = "LATEST"
    ALL = "ALL"


class Overlap(StrEnum):
    """Say what becomes of an occurrence while an execution is in progress."""

    SKIP = "SKIP"
    QUEUE = "QUEUE"


class Cause(StrEnum):
    """Say what made an automation run; all but MANUAL are also what triggers can be."""

    CRON = "CRON"
    INTERVAL = "INTERVAL"
    METRIC = "METRIC"
    DATASET = "DATASET"
    DRIFT = "DRIFT"
    MANUAL = "MANUAL"


OF_TIME = frozenset({Cause.CRON, Cause.INTERVAL})


class MetricSource(StrEnum):
    """Say which values of a metric a trigger looks at."""

    RUN_LAST = "RUN_LAST"
    RUN_BEST = "RUN_BEST"
    EVALUATION = "EVALUATION"
    REPORT = "REPORT"


class Measure(StrEnum):
    """Say by which figure a column is said to have drifted."""

    VERDICT = "VERDICT"
    """Metadata's own: by the PSI and what chance makes of it."""
    PSI = "PSI"
    JS_DISTANCE = "JS_DISTANCE"


class Bound(StrEnum):
    """Say on which side of its threshold a value has crossed it."""

    ABOVE = "ABOVE"
    BELOW = "BELOW"


@dataclass(frozen=True, slots=True)
class Trigger:
    """When an automation runs; the fields in use depend on its kind."""

    kind: Cause = Cause.MANUAL
    expression: str = ""
    time_zone: str = "UTC"
    interval: float = 0.0
    """Seconds."""
    model: str = ""
    metric: str = ""
    source: MetricSource | None = None
    bound: Bound | None = None
    threshold: float = 0.0
    dataset: str = ""
    alias: str = ""
    """Of the model's version that is in use, an id."""
    environment: str = ""
    """Where the model's version in use is live."""
    role: str = ""
    """Of the data that the version in use was trained on."""
    columns: tuple[str, ...] = ()
    """Those that count; empty: all."""
    measure: Measure | None = None

    @property
    def is_polled(self) -> bool:
        """Say whether metadata must be asked for what it looks at."""
        polled = self.kind is Cause.METRIC and self.source is not MetricSource.REPORT
        return polled or self.hears_datasets

    @property
    def hears_datasets(self) -> bool:
        """Say whether it looks at the new versions of a dataset."""
        return self.kind in (Cause.DATASET, Cause.DRIFT)


@dataclass(frozen=True, slots=True)
class Watching:
    """How far a trigger has looked, and whether its metric's next crossing counts."""

    armed: bool = True
    cursor: str = ""
    """In the changes of runs or versions."""
    dataset_version: int = 0
    training_data: str = ""
    """The dataset version that the last one was held against."""


@dataclass(frozen=True, slots=True)
class Training:
    """What a model's version in use was trained on."""

    version: str = ""
    data: str = ""
    """A dataset version."""
    problem: str = ""
    """Why there is none; else empty."""


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How far a column's values moved."""

    column: str
    psi: float | None
    js_distance: float | None
    psi_limit: float | None
    """Above which PSI metadata says that it drifted."""
    drifted: bool
    note: str = ""
    """Why nothing is known; else empty."""


@dataclass(frozen=True, slots=True)
class NewestData:
    """Data that a build reads in its dataset's newest version."""

    name: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Deploy:
    """Where to put a version live, and what it must meet."""

    environment: str
    conditions: tuple[bytes, ...] = ()
    """Gates as the deployer encodes them: it alone judges by them."""
    plan: bytes = b""
    """How the version takes over, as the deployer encodes it; empty: all at once."""


@dataclass(frozen=True, slots=True)
class Action:
    """What an automation does."""

    build: BuildSpec
    newest_data: tuple[NewestData, ...] = ()
    deploy: Deploy | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller says of an automation."""

    model: str
    action: Action
    trigger: Trigger = Trigger()
    description: str = ""
    disabled: bool = False
    catch_up: CatchUp = CatchUp.SKIP
    window: float = DEFAULT_WINDOW.total_seconds()
    """Seconds that an occurrence may be late, for SKIP."""
    overlap: Overlap = Overlap.SKIP


@dataclass(frozen=True, slots=True)
class Automation:
    """An automation."""

    name: AutomationName
    uid: str
    """Tells it from another that had its name before."""
    draft: Draft
    principal: str
    delegation: Delegation
    create_time: datetime
    update_time: datetime
    edition: int = 1
    suspension: str = ""
    """Why it is suspended; empty: it is not."""
    next_time: datetime | None = None
    watching: Watching = Watching()
    look_time: datetime | None = None
    """When to ask metadata next, for what a polled trigger looks at."""
    executions: int = 0
    """How many it has had."""
    last_execution: str = ""
    """Its id."""

    @property
    def etag(self) -> str:
        """Return what changes with every write of a caller's."""
        return str(self.edition)

    @property
    def state(self) -> AutomationState:
        """Say whether its trigger is heard."""
        if self.suspension:
            return AutomationState.SUSPENDED
        return AutomationState.DISABLED if self.draft.disabled else AutomationState.ACTIVE

    def execution_name(self, occurrence: str) -> ExecutionName:
        """Name the one execution of an occurrence."""
        ident = uuid.uuid5(_NAMESPACE, f"{self.uid}/{occurrence}").hex[:16]
        return ExecutionName(self.name.project, self.name.automation, f"e-{ident}")


class ExecutionState(StrEnum):
    """Say where an execution stands."""

    PENDING = "PENDING"
    BUILDING = "BUILDING"
    CHECKING = "CHECKING"
    DEPLOYING = "DEPLOYING"
    SUCCEEDED = "SUCCEEDED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Say whether nothing can change any more."""
        return self not in ACTIVE


ACTIVE = frozenset(
    {
        ExecutionState.PENDING,
        ExecutionState.BUILDING,
        ExecutionState.CHECKING,
        ExecutionState.DEPLOYING,
    }
)


class FailureReason(StrEnum):
    """Why an execution failed; `Execution.failure` documents them."""

    BUILD_FAILED = "BUILD_FAILED"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    SUPERSEDED = "SUPERSEDED"
    RIGHT_LOST = "RIGHT_LOST"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a condition or a gate judged a version."""

    gate_id: str
    passed: bool
    explanation: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that makes an automation run; its key is its own in the automation."""

    key: str
    cause: Cause
    explanation: str
    actor: str
    time: datetime | None = None
    """When it was due."""
    dataset_version: str = ""
    """The version that it is about."""
    dropped: str = ""
    """Why it is not executed; empty: it is."""


@dataclass(frozen=True, slots=True)
class Execution:
    """An execution and how far it got."""

    name: ExecutionName
    uid: str
    """Of its automation."""
    number: int
    occurrence: Occurrence
    model: str
    action: Action
    principal: str
    create_time: datetime
    state: ExecutionState = ExecutionState.PENDING
    explanation: str = ""
    failure: FailureReason | None = None
    build: str = ""
    """The build's id."""
    version: str = ""
    verdicts: tuple[Verdict, ...] = ()
    deployment: str = ""
    revision: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    fence: int = 0
    """Rises with every replica that takes it on, and when it is cancelled."""

    def request_id(self, purpose: str) -> str:
        """Return what makes one of its calls the same whoever repeats it."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.uid}/{self.name}/{purpose}"))


@dataclass(frozen=True, slots=True)
class Report:
    """A value that was reported of a model's metric."""

    model: str
    metric: str
    value: float
    time: datetime
    reporter: str
    sequence: int = field(default=0)
    """Its place among all of the metric."""
