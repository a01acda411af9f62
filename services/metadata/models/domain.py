"""Models, versions, aliases: what they are, and the rules of their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.common.errors import Reason, ServiceError
from services.common.names import AliasName, ModelName, VersionName
from services.metadata.values import Failure, ParamValue


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


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What the caller may say about a version."""

    artifact: str
    run: str
    build: str
    label: str
    description: str
    labels: Mapping[str, str]
    environment_digest: str
    tests_passed: bool
    aliases: tuple[str, ...]


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
    params: dict[str, ParamValue]
    metrics: dict[str, float]
    environment_digest: str
    tests_passed: bool
    creator: str
    create_time: datetime
    ready_time: datetime | None
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version whose bytes are not yet held."""

    name: VersionName
    artifact: str
    creator: str


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


def alias_moved(name: AliasName, current: str) -> ServiceError:
    """Say that an alias does not point where the caller expected."""
    where = f"points to {current}" if current else "does not exist"
    return ServiceError(
        Reason.ALIAS_MOVED, f"{name} {where} by now", resource=str(name), version=current
    )


def bytes_missing(digest: str) -> ServiceError:
    """Say that a version's bytes are not stored."""
    message = f"the bytes of artifact {digest} are not stored; push them, then register again"
    return ServiceError(Reason.BYTES_MISSING, message, digest=digest)
