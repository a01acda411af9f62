"""Environments, deployments, revisions, assignments: what the deployer knows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.common.names import DeploymentName, EnvironmentName


class Goal(StrEnum):
    """Say which values of a metric are better."""

    MAXIMIZE = "MAXIMIZE"
    MINIMIZE = "MINIMIZE"


class GateKind(StrEnum):
    """Say what a gate looks at."""

    METRIC_THRESHOLD = "METRIC_THRESHOLD"
    BETTER_THAN_LIVE = "BETTER_THAN_LIVE"
    TESTS_PASSED = "TESTS_PASSED"


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


class RevisionOutcome(StrEnum):
    """Say how a revision went."""

    IN_PROGRESS = "IN_PROGRESS"
    LIVE = "LIVE"
    REPLACED = "REPLACED"
    FAILED = "FAILED"
    SUPERSEDED = "SUPERSEDED"


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
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a gate judged a version."""

    gate_id: str
    passed: bool
    explanation: str


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


@dataclass(frozen=True, slots=True)
class AssignedVariant:
    """One version that should run, with its share of the requests in percent."""

    revision: int
    version: str
    artifact: str
    weight: int
    environment_digest: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """What should run for a deployment."""

    generation: int = 0
    variants: tuple[AssignedVariant, ...] = ()
    trace_parent: str = ""
    time: datetime | None = None

    def weight(self, revision: int) -> int | None:
        """Return a revision's share of the requests; None when it is not assigned."""
        for variant in self.variants:
            if variant.revision == revision:
                return variant.weight
        return None


@dataclass(frozen=True, slots=True)
class VariantReport:
    """How one running version is, as its controller says."""

    revision: int
    state: VariantState
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a controller made of an assignment."""

    generation: int = 0
    weights_applied: bool = False
    variants: tuple[VariantReport, ...] = ()

    def variant(self, revision: int) -> VariantReport | None:
        """Return how a revision's variant is; None when it does not run."""
        for variant in self.variants:
            if variant.revision == revision:
                return variant
        return None


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

    @property
    def etag(self) -> str:
        """Return what changes with every new revision."""
        return str(self.desired_revision)

    @property
    def desired(self) -> Revision:
        """Return the newest wish."""
        return self.revision(self.desired_revision)

    @property
    def live(self) -> Revision | None:
        """Return the revision that answers."""
        return self.revision(self.live_revision) if self.live_revision else None

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
