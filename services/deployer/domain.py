"""Environments, deployments, revisions, assignments: what the deployer knows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.common.names import DeploymentName, EnvironmentName
from services.deployer.rollouts.plans import HeaderMatch, RolloutPlan, ServingSpec, Traffic


class Goal(StrEnum):
    """Say which values of a metric are better."""

    MAXIMIZE = "MAXIMIZE"
    MINIMIZE = "MINIMIZE"


class GateKind(StrEnum):
    """Say what a gate looks at."""

    METRIC_THRESHOLD = "METRIC_THRESHOLD"
    BETTER_THAN_LIVE = "BETTER_THAN_LIVE"
    TESTS_PASSED = "TESTS_PASSED"
    EVALUATION_PRESENT = "EVALUATION_PRESENT"
    SIGNATURE_VALID = "SIGNATURE_VALID"
    FORMAT_ALLOWED = "FORMAT_ALLOWED"
    APPROVED = "APPROVED"


class DeploymentState(StrEnum):
    """Say where a deployment stands."""

    PENDING = "PENDING"
    ROLLING_OUT = "ROLLING_OUT"
    LIVE = "LIVE"
    ROLLING_BACK = "ROLLING_BACK"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class RevisionCause(StrEnum):
    """Say why there is a revision."""

    DEPLOY = "DEPLOY"
    ROLLBACK = "ROLLBACK"
    UNDEPLOY = "UNDEPLOY"
    SHADOW = "SHADOW"
    PREVIEW = "PREVIEW"


class RevisionOutcome(StrEnum):
    """Say how a revision went."""

    IN_PROGRESS = "IN_PROGRESS"
    LIVE = "LIVE"
    REPLACED = "REPLACED"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"
    ENDED = "ENDED"


class VariantState(StrEnum):
    """Say how one running version is."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


class EventType(StrEnum):
    """Name what a journal entry tells; documented at `DeploymentEvent.type`."""

    DEPLOY_REQUESTED = "DEPLOY_REQUESTED"
    GATE_REFUSED = "GATE_REFUSED"
    ROLLBACK_REQUESTED = "ROLLBACK_REQUESTED"
    STOP_REQUESTED = "STOP_REQUESTED"
    VARIANT_STARTING = "VARIANT_STARTING"
    VARIANT_READY = "VARIANT_READY"
    VARIANT_FAILED = "VARIANT_FAILED"
    TRAFFIC_SHIFTED = "TRAFFIC_SHIFTED"
    DRAINING = "DRAINING"
    DRAINED = "DRAINED"
    LIVE = "LIVE"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    STEP_STARTED = "STEP_STARTED"
    ANALYSIS_PASSED = "ANALYSIS_PASSED"
    CONTINUE_REQUESTED = "CONTINUE_REQUESTED"
    ABORT_REQUESTED = "ABORT_REQUESTED"
    SHADOW_REQUESTED = "SHADOW_REQUESTED"
    SHADOW_ENDED = "SHADOW_ENDED"
    PREVIEW_REQUESTED = "PREVIEW_REQUESTED"
    PREVIEW_ENDED = "PREVIEW_ENDED"
    SAMPLE_RECORDED = "SAMPLE_RECORDED"
    SCALED = "SCALED"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly: for a program and for a person."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on versions; the fields in use depend on its kind."""

    gate_id: str
    kind: GateKind
    metric: str = ""
    threshold: float = 0.0
    goal: Goal | None = None
    """Which values are better; None: as the model says."""
    margin: float = 0.0
    strict: bool = False
    """What is only just good enough does not pass."""
    dataset: str = ""
    public_keys: tuple[str, ...] = ()
    unverified: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a gate judged a version."""

    gate_id: str
    passed: bool
    explanation: str


class TargetKind(StrEnum):
    """Say who carries out what is deployed in an environment."""

    PROCESS = "PROCESS"
    EXTERNAL = "EXTERNAL"


@dataclass(frozen=True, slots=True)
class Environment:
    """Where models go live."""

    name: EnvironmentName
    description: str
    gates: tuple[Gate, ...]
    address: str
    edition: int
    """Counts its writes but those of the address."""
    create_time: datetime
    update_time: datetime
    target: TargetKind = TargetKind.PROCESS

    @property
    def etag(self) -> str:
        """Return what changes with every write but the address."""
        return str(self.edition)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as metadata knows it: all that gates and rollouts need."""

    name: str
    artifact: str
    environment_digest: str
    metrics: Mapping[str, float]
    tests_passed: bool
    creator: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A measurement of a version on a dataset version; empty: on none that is known."""

    dataset_version: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FormatReport:
    """What the artifact service says of an artifact's files."""

    verdict: str
    """ALLOWED, UNVERIFIED or UNSAFE: the worst of them."""
    explanation: str


@dataclass(frozen=True, slots=True)
class Approval:
    """Somebody lets a version go live in an environment."""

    version: str
    principal: str
    reason: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """What gates look at. What no gate of the environment asks for is not gathered."""

    candidate: Candidate
    live: Candidate | None = None
    goals: Mapping[str, Goal] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    """Of the candidate, newest first."""
    live_evaluations: tuple[Evaluation, ...] = ()
    approvals: tuple[Approval, ...] = ()
    format: FormatReport | None = None
    unsigned: Mapping[str, str] = field(default_factory=dict)
    """Why the gate's keys have no signature that holds, by the gate's id."""


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable wish, and how it went."""

    number: int
    version: str
    """Empty when the wish was to serve nothing."""
    artifact: str
    environment_digest: str
    actor: str
    reason: str
    cause: RevisionCause
    create_time: datetime
    verdicts: tuple[Verdict, ...] = ()
    outcome: RevisionOutcome = RevisionOutcome.IN_PROGRESS
    failure: Failure | None = None
    live_time: datetime | None = None
    restored_revision: int = 0
    running: bool = False
    """From its first assignment until its controller says that it is gone."""
    trace_parent: str = ""
    plan: RolloutPlan = field(default_factory=RolloutPlan)
    serving: ServingSpec = field(default_factory=ServingSpec)
    mirror_percent: int = 0
    """For a shadow: the share of the requests that are copied to it."""
    header_match: HeaderMatch | None = None
    """For a preview: what the requests have that it answers."""
    sample: str = ""
    """The newest dataset version of its sampled requests."""
    variant: int = 0
    """The revision whose running variant it takes up again; 0: it has its own."""

    @property
    def key(self) -> int:
        """Return the number its variant is assigned and reported by."""
        return self.variant or self.number


@dataclass(frozen=True, slots=True)
class AssignedVariant:
    """One version that should run, with its share of the requests in percent."""

    revision: int
    version: str
    artifact: str
    weight: int
    environment_digest: str
    mirror_percent: int = 0
    serving: ServingSpec = field(default_factory=ServingSpec)
    header_match: HeaderMatch | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled requests of a variant, summed up; their rows are not kept."""

    digest: str
    row_count: int
    start_time: datetime
    end_time: datetime
    columns: bytes
    """Metadata's own message with the columns and their profiles, which only metadata reads."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What should run for a deployment."""

    generation: int = 0
    variants: tuple[AssignedVariant, ...] = ()
    trace_parent: str = ""
    time: datetime | None = None

    def weight(self, key: int) -> int | None:
        """Return a variant's share of the requests; None when it is not assigned."""
        return self.weights.get(key)

    @property
    def weights(self) -> dict[int, int]:
        """Return the share of the requests of each variant."""
        return {variant.revision: variant.weight for variant in self.variants}


@dataclass(frozen=True, slots=True)
class VariantReport:
    """How one running version is, as its controller says."""

    revision: int
    state: VariantState
    failure: Failure | None = None
    ready_replica_count: int = 0
    restart_count: int = 0
    traffic: Traffic | None = None
    wanted_replica_count: int = 0
    """0: the controller does not say."""
    scaling: str = ""
    """Why so many are wanted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a controller made of an assignment."""

    generation: int = 0
    weights_applied: bool = False
    variants: tuple[VariantReport, ...] = ()

    def variant(self, key: int) -> VariantReport | None:
        """Return how a variant is; None when it does not run."""
        for variant in self.variants:
            if variant.revision == key:
                return variant
        return None

    def traffic(self, key: int) -> Traffic | None:
        """Return what was counted of a variant; None when that is not known."""
        found = self.variant(key)
        return None if found is None else found.traffic


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an unfinished rollout stands."""

    step: int = 0
    """From 1; 0 before the first."""
    start_time: datetime | None = None
    """When the step's shares were in force."""
    continued: bool = False
    """Whether somebody said to go on after this step."""
    before: Mapping[int, Traffic] = field(default_factory=dict)
    """What had been counted of each variant by then."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The live endpoint of one model in one environment."""

    name: DeploymentName
    state: DeploymentState
    failure: Failure | None
    desired_revision: int
    live_revision: int
    """0: none."""
    assignment: Assignment
    report: Report
    revisions: tuple[Revision, ...]
    """Those that are desired, live or running."""
    create_time: datetime
    update_time: datetime
    uses: frozenset[str] = field(default=frozenset())
    """The versions whose use metadata has on record."""
    last_revision: int = 0
    """The newest one, a shadow's included."""
    shadow_revision: int = 0
    """The one that gets copies of the requests; 0: none."""
    preview_revision: int = 0
    """The one that gets the requests with its header; 0: none."""
    warm_revision: int = 0
    """The one that is kept running for a rollback; 0: none."""
    progress: Progress = field(default_factory=Progress)

    @property
    def etag(self) -> str:
        """Return what changes with every new revision."""
        return str(self.last_revision)

    @property
    def desired(self) -> Revision:
        """Return the newest wish."""
        return self.revision(self.desired_revision)

    @property
    def live(self) -> Revision | None:
        """Return the revision that answers."""
        return self.revision(self.live_revision) if self.live_revision else None

    @property
    def beside(self) -> dict[RevisionCause, Revision]:
        """Return the shadow and the preview, as far as there are any."""
        numbers = (self.shadow_revision, self.preview_revision)
        found = [self.revision(number) for number in numbers if number]
        return {revision.cause: revision for revision in found}

    @property
    def warm(self) -> Revision | None:
        """Return the revision that is kept running for a rollback."""
        return self.revision(self.warm_revision) if self.warm_revision else None

    def revision(self, number: int) -> Revision:
        """Return a revision that is desired, live or running."""
        return next(revision for revision in self.revisions if revision.number == number)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that happened to a deployment."""

    type: EventType
    revision: int
    message: str
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What a deployment becomes next, and what the journal says about it."""

    deployment: Deployment
    entries: tuple[JournalEntry, ...] = ()
