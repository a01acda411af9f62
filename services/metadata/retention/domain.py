"""Rules of retention, and what they say of each version; nothing here does anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.common.names import ModelName, VersionName
from services.metadata.models.domain import VersionState


@dataclass(frozen=True, slots=True)
class Rules:
    """What keeps a version."""

    keep_last: int
    keep_for: timedelta | None
    purge_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Retention:
    """A model's rules, and who answers for what they do."""

    model: ModelName
    rules: Rules
    revision: int
    setter: str
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as far as retention looks at it."""

    name: VersionName
    state: VersionState
    is_archived: bool
    create_time: datetime
    delete_time: datetime | None
    needed_by: tuple[str, ...]
    """Resource names of the aliases that point to it and the deployments that use it."""


class Action(StrEnum):
    """What becomes of a version."""

    KEEP = "KEEP"
    DELETE = "DELETE"
    PURGE = "PURGE"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a version, and why."""

    name: VersionName
    action: Action
    reasons: tuple[str, ...]


def judge(rules: Rules, versions: Sequence[Candidate], now: datetime) -> Iterator[Verdict]:
    """Say what becomes of versions, which must come newest first."""
    counted = 0
    for version in versions:
        if version.delete_time is not None:
            yield _deleted(rules, version.name, version.delete_time, now)
            continue
        reasons = list(version.needed_by)
        if version.state is VersionState.PENDING:
            reasons.append("pending")
        if version.state is VersionState.READY and not version.is_archived:
            counted += 1
            if counted <= rules.keep_last:
                reasons.append(f"among the last {rules.keep_last}")
        if rules.keep_for is not None and now - version.create_time < rules.keep_for:
            reasons.append(f"younger than {_told(rules.keep_for)}")
        if reasons:
            yield Verdict(version.name, Action.KEEP, tuple(reasons))
        else:
            yield Verdict(version.name, Action.DELETE, ("no rule keeps it",))


def _deleted(rules: Rules, name: VersionName, since: datetime, now: datetime) -> Verdict:
    if rules.purge_after is None or now - since < rules.purge_after:
        return Verdict(name, Action.KEEP, ("deleted, may be restored",))
    return Verdict(name, Action.PURGE, (f"deleted for more than {_told(rules.purge_after)}",))


def _told(length: timedelta) -> str:
    """Write a length of time; whole days without hours."""
    return str(length).removesuffix(", 0:00:00")
