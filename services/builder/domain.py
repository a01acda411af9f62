"""Builds as the builder sees them: states, phases, the rules between them, limits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.builder.spec import BuildSpec, PhaseKind, SourceOrigin
from services.common.errors import Reason, ServiceError, wrong_state
from services.common.names import BuildName

MAX_FAILED_ATTEMPTS = 3
"""After so many an order is taken for poison, whatever its budget says."""
MAX_ATTEMPTS = 20
"""Those that were handed back included."""
LONGEST_RETRY_DELAY = timedelta(minutes=5)
MAX_BATCH_BYTES = 256 * 1024
MAX_WAIT = timedelta(seconds=30)
MAX_FAILURE_MESSAGE = 4_000
MAX_CARD = 262_144
MAX_LICENSE = 128
MAX_REFERENCE = 512


class BuildState(StrEnum):
    """Where a build stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Say whether nothing can change any more."""
        return self in ENDED


LEASED = frozenset({BuildState.RUNNING, BuildState.CANCELLING})
ENDED = frozenset({BuildState.SUCCEEDED, BuildState.FAILED, BuildState.CANCELLED})


class PhaseState(StrEnum):
    """Where a phase stands."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


_FOLLOWING = {
    PhaseState.PENDING: frozenset({PhaseState.RUNNING, PhaseState.SKIPPED}),
    PhaseState.RUNNING: frozenset({PhaseState.SUCCEEDED, PhaseState.FAILED, PhaseState.CANCELLED}),
}
_PASSED = frozenset({PhaseState.SUCCEEDED, PhaseState.SKIPPED})


class FailureReason(StrEnum):
    """Why a build failed; `Build.failure` documents them."""

    ENVIRONMENT_FAILED = "ENVIRONMENT_FAILED"
    TRAIN_FAILED = "TRAIN_FAILED"
    TEST_FAILED = "TEST_FAILED"
    SMOKE_FAILED = "SMOKE_FAILED"
    PACKAGE_FAILED = "PACKAGE_FAILED"
    REGISTER_FAILED = "REGISTER_FAILED"
    IMAGE_PUSH_FAILED = "IMAGE_PUSH_FAILED"
    SOURCE_INVALID = "SOURCE_INVALID"
    DATA_MISSING = "DATA_MISSING"
    SECRET_MISSING = "SECRET_MISSING"  # noqa: S105 - a reason, no secret
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    DISK_FULL = "DISK_FULL"
    TOO_MANY_PROCESSES = "TOO_MANY_PROCESSES"
    LOG_TOO_LARGE = "LOG_TOO_LARGE"
    WORKER_LOST = "WORKER_LOST"
    WORKER_STOPPED = "WORKER_STOPPED"
    RIGHT_LOST = "RIGHT_LOST"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something ended badly."""

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that did not bring its build to an end."""

    number: int
    run: str
    worker: str
    failure: Failure
    start_time: datetime
    end_time: datetime


class WaitingReason(StrEnum):
    """What a queued build waits for; `builder.v1.WaitingReason` documents them."""

    WORKERS_BUSY = "WORKERS_BUSY"
    PROJECT_LIMIT = "PROJECT_LIMIT"
    MODEL_LIMIT = "MODEL_LIMIT"
    NO_WORKER = "NO_WORKER"
    NO_CAPACITY = "NO_CAPACITY"
    RETRY_DELAY = "RETRY_DELAY"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a queued build waits for, for programs and for people."""

    reason: WaitingReason
    message: str


@dataclass(frozen=True, slots=True)
class TestCounts:
    """How many of a source's own tests ended how."""

    __test__ = False  # which pytest would take for a test by its name

    passed: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of a build's present attempt."""

    kind: PhaseKind
    state: PhaseState = PhaseState.PENDING
    failure: Failure | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    tests: TestCounts | None = None


FRESH_PHASES = tuple(Phase(kind) for kind in PhaseKind)


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's claim on one attempt of a build."""

    build: BuildName
    attempt: int
    fence: int


@dataclass(frozen=True, slots=True)
class Winner:
    """What the attempt that won brought: fixed before the version is registered."""

    artifact: str
    environment_digest: str
    tests_passed: bool
    card: str = ""
    license: str = ""
    image: str = ""
    image_digest: str = ""
    evidence: str = ""
    image_reference: str = ""
    """Of the image in a registry: `registry/repository@sha256:…`."""

    @property
    def companions(self) -> tuple[str, ...]:
        """Return the artifacts that the version holds beside its own."""
        return tuple(artifact for artifact in (self.image, self.evidence) if artifact)


@dataclass(frozen=True, slots=True)
class FetchedSource:
    """What a git source came to when the first attempt fetched it."""

    source: str
    """The artifact with the files."""
    origin: SourceOrigin


@dataclass(frozen=True, slots=True)
class Delegation:
    """The credential that acts for whoever ordered a build."""

    credential: str = field(repr=False)
    renew_time: datetime


@dataclass(frozen=True, slots=True)
class Build:
    """A build order and how far it got."""

    name: BuildName
    model: str
    """The model's full name."""
    spec: BuildSpec
    creator: str
    create_time: datetime
    delegation: Delegation
    state: BuildState = BuildState.QUEUED
    failure: Failure | None = None
    phases: tuple[Phase, ...] = FRESH_PHASES
    attempt: int = 0
    fence: int = 0
    """Rises with every change of who may write."""
    beats: int = 0
    """Rises with every sign of life of the lease's holder."""
    acknowledged: int = 0
    """The last batch of events of this attempt that is durable."""
    worker: str = ""
    run: str = ""
    fetched: FetchedSource | None = None
    winner: Winner | None = None
    version: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    attempt_start_time: datetime | None = None
    past_attempts: tuple[Attempt, ...] = ()
    retry_time: datetime | None = None
    """Before this the next attempt does not begin."""
    waiting: Waiting | None = None
    """Why it is in the queue still; looked up where it is shown, never stored."""

    @property
    def topic(self) -> str:
        """Name the ledger of the build's events."""
        return topic_of(self.name)

    @property
    def source(self) -> str:
        """Name the artifact of its source; empty until a git source was fetched."""
        return self.fetched.source if self.fetched else self.spec.source

    @property
    def origin(self) -> SourceOrigin | None:
        """Say where its source came from, as far as it is known."""
        return self.fetched.origin if self.fetched else self.spec.origin

    @property
    def lease(self) -> Lease:
        """Return the present claim."""
        return Lease(self.name, self.attempt, self.fence)

    @property
    def expirable(self) -> bool:
        """Say whether a silent worker costs it its attempt; one with a winner needs none."""
        return self.state in LEASED and self.winner is None

    def held_by(self, lease: Lease) -> bool:
        """Say whether a claim is the present one."""
        return self.state in LEASED and self.lease == lease

    def tries_again(self, failure: Failure) -> bool:
        """Say whether an attempt that ended so is followed by another."""
        if failure.reason is FailureReason.WORKER_STOPPED:
            return self.attempt < MAX_ATTEMPTS
        failed = [*self._failed_attempts(), failure]
        same = sum(other.reason is failure.reason for other in failed)
        budget = self.spec.retries.budget(failure.reason)
        return len(failed) < MAX_FAILED_ATTEMPTS and same <= budget

    def retry_delay(self, failure: Failure, first: timedelta) -> timedelta:
        """Return how long to wait before the next attempt: twice as long each time."""
        if failure.reason is FailureReason.WORKER_STOPPED:
            return timedelta()
        return min(first * (1 << len(self._failed_attempts())), LONGEST_RETRY_DELAY)

    def _failed_attempts(self) -> list[Failure]:
        past = (attempt.failure for attempt in self.past_attempts)
        return [f for f in past if f.reason is not FailureReason.WORKER_STOPPED]

    def running_phase(self) -> Phase | None:
        """Return the phase in progress."""
        return next((p for p in self.phases if p.state is PhaseState.RUNNING), None)

    def with_phase(self, phase: Phase) -> Build:
        """Put a phase in its place."""
        return replace(
            self, phases=tuple(phase if p.kind is phase.kind else p for p in self.phases)
        )

    def move_phase(self, moved: Phase, *, now: datetime) -> Build:
        """Start or end a phase; refuse with WRONG_STATE what is out of order."""
        index = list(PhaseKind).index(moved.kind)
        phase = self.phases[index]
        before = all(p.state in _PASSED for p in self.phases[:index])
        if not before or moved.state not in _FOLLOWING.get(phase.state, ()):
            message = f"phase {moved.kind} is {phase.state} and cannot become {moved.state} now"
            raise wrong_state(self.name, phase.state, message)
        starts = moved.state is PhaseState.RUNNING
        start_time, end_time = (now, None) if starts else (phase.start_time, now)
        return self.with_phase(replace(moved, start_time=start_time, end_time=end_time))


def topic_of(name: BuildName) -> str:
    """Name the ledger of a build's events."""
    return f"builds/{name.project}/{name.build}"


def lease_lost(name: BuildName) -> ServiceError:
    """Say that another has the build now, or nobody."""
    message = f"the lease of {name} was lost; stop working on it"
    return ServiceError(Reason.LEASE_LOST, message, resource=str(name))


def bytes_missing(artifact: str) -> ServiceError:
    """Say that an artifact is not stored."""
    message = f"{artifact} is not stored; push it first"
    return ServiceError(Reason.BYTES_MISSING, message, digest=artifact.rpartition("/")[2])
