"""Models, versions, aliases: what they are, and the rules of their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.common.errors import Reason, ServiceError, wrong_state
from services.common.names import AliasName, EvaluationName, ModelName, ResourceName, VersionName
from services.metadata.values import Failure, ParamValue

USERS_NAMED = 20
"""So many users of a version does a refusal name."""


class MetricGoal(StrEnum):
    """Which values of a metric are better."""

    MAXIMIZE = "MAXIMIZE"
    MINIMIZE = "MINIMIZE"


class VersionState(StrEnum):
    """Whether a version's bytes can be relied on."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class ModelDraft:
    """What the caller may say about a model."""

    display_name: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    metric_goals: Mapping[str, MetricGoal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """A named line of versions."""

    name: ModelName
    display_name: str
    description: str
    labels: dict[str, str]
    metric_goals: dict[str, MetricGoal]
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What the caller may say about a version."""

    artifact: str
    run: str
    build: str
    label: str
    description: str
    labels: Mapping[str, str]
    card: str
    license: str
    image: str
    environment_digest: str
    tests_passed: bool
    aliases: tuple[str, ...]
    may_deploy: bool
    """Whether the caller may move aliases that the project protects."""


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable result: bytes and everything that made them."""

    name: VersionName
    state: VersionState
    failure: Failure | None
    artifact: str
    run: str
    build: str
    label: str
    description: str
    labels: dict[str, str]
    card: str
    license: str
    image: str
    params: dict[str, ParamValue]
    metrics: dict[str, float]
    environment_digest: str
    tests_passed: bool
    creator: str
    create_time: datetime
    ready_time: datetime | None
    archive_time: datetime | None
    delete_time: datetime | None
    revision: int
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionEdit:
    """The new values of what may be changed of a version."""

    description: str
    labels: Mapping[str, str]
    card: str
    license: str
    image: str


@dataclass(frozen=True, slots=True)
class Standing:
    """A version's row and what decides what may be done with it."""

    pk: int
    state: VersionState
    revision: int
    is_archived: bool
    is_deleted: bool

    @property
    def word(self) -> str:
        """Return the one word for it: DELETED, ARCHIVED, or the state."""
        if self.is_deleted:
            return "DELETED"
        return "ARCHIVED" if self.is_archived else self.state.value

    @property
    def may_be_chosen(self) -> bool:
        """Say whether it may be aliased or deployed."""
        return self.word == VersionState.READY


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version whose bytes are not yet held."""

    name: VersionName
    artifact: str
    creator: str


@dataclass(frozen=True, slots=True)
class EvaluationDraft:
    """What the caller says of an evaluation; no time: now."""

    metrics: Mapping[str, float]
    dataset_version: str
    evaluate_time: datetime | None
    notes: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A measurement of a version after the fact."""

    name: EvaluationName
    metrics: dict[str, float]
    dataset_version: str
    evaluate_time: datetime
    notes: str
    creator: str
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable pointer to a version; `change` is the number of its last move."""

    name: AliasName
    version: VersionName
    change: int
    update_time: datetime


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One entry of an alias's history; an empty version is no version."""

    alias: AliasName
    old_version: str
    new_version: str
    actor: str
    reason: str
    change_time: datetime


@dataclass(frozen=True, slots=True)
class AliasMove:
    """What a caller wants of an alias, and under which condition.

    `expected_version` None: wherever it points; empty: nowhere. `etag` empty:
    whatever it is.
    """

    name: AliasName
    version: VersionName
    actor: str
    reason: str
    expected_version: str | None
    etag: str
    may_deploy: bool = False
    """Whether the caller may move aliases that the project protects."""


def alias_moved(name: AliasName, current: str) -> ServiceError:
    """Say that an alias does not point where the caller expected."""
    where = f"points to {current}" if current else "does not exist"
    return ServiceError(
        Reason.ALIAS_MOVED, f"{name} {where} by now", resource=str(name), version=current
    )


def in_use(name: ResourceName, users: Sequence[str]) -> ServiceError:
    """Say that something cannot go while others need it, and which do."""
    named = ", ".join(users[:USERS_NAMED])
    more = f" and {len(users) - USERS_NAMED} more" if len(users) > USERS_NAMED else ""
    return ServiceError(
        Reason.RESOURCE_IN_USE,
        f"{name} is in use by {named}{more}",
        resource=str(name),
        users=",".join(users[:USERS_NAMED]),
    )


def not_choosable(name: VersionName, standing: Standing, purpose: str) -> ServiceError:
    """Say that a version is not READY, or was archived or deleted."""
    word = standing.word
    return wrong_state(name, word, f"{name} is {word}; it cannot be {purpose}")


def bytes_missing(digest: str) -> ServiceError:
    """Say that a version's bytes are not stored."""
    message = f"the bytes of artifact {digest} are not stored; push them, then register again"
    return ServiceError(Reason.BYTES_MISSING, message, digest=digest)
