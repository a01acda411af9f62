"""What the ledger of a project says: one change of one resource, as others may follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.common.names import ProjectName
from services.common.sql.database import Transaction
from services.metadata.values import pack


class ChangeKind(StrEnum):
    """What happened to what; the part before the dot says to what."""

    PROJECT_CREATED = "project.created"
    PROJECT_UPDATED = "project.updated"
    PROJECT_DELETED = "project.deleted"
    PROJECT_RESTORED = "project.restored"
    PROJECT_PURGED = "project.purged"
    MODEL_CREATED = "model.created"
    MODEL_UPDATED = "model.updated"
    MODEL_DELETED = "model.deleted"
    MODEL_RESTORED = "model.restored"
    MODEL_PURGED = "model.purged"
    VERSION_PENDING = "version.pending"
    VERSION_READY = "version.ready"
    VERSION_FAILED = "version.failed"
    VERSION_UPDATED = "version.updated"
    VERSION_ARCHIVED = "version.archived"
    VERSION_UNARCHIVED = "version.unarchived"
    VERSION_DELETED = "version.deleted"
    VERSION_RESTORED = "version.restored"
    VERSION_PURGED = "version.purged"
    VERSION_EVALUATED = "version.evaluated"
    ALIAS_MOVED = "alias.moved"
    ALIAS_DELETED = "alias.deleted"
    USE_STARTED = "use.started"
    USE_ENDED = "use.ended"
    RUN_CREATED = "run.created"
    RUN_UPDATED = "run.updated"
    RUN_ENDED = "run.ended"
    RUN_REVIVED = "run.revived"
    RUN_DELETED = "run.deleted"
    RUN_RESTORED = "run.restored"
    RUN_PURGED = "run.purged"
    DATASET_VERSION_CREATED = "dataset_version.created"
    EXECUTION_SUCCEEDED = "execution.succeeded"
    EXECUTION_SKIPPED = "execution.skipped"
    EXECUTION_FAILED = "execution.failed"
    EXECUTION_CANCELLED = "execution.cancelled"


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what followers are told, and what their filters look at."""

    name: str
    actor: str = ""
    # Of a version or a run, as the change left it.
    state: str = ""
    # Of a run.
    group: str = ""
    build: str = ""
    creator: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    # Of an alias.
    old_version: str = ""
    new_version: str = ""
    # Of a use: the deployment.
    user: str = ""
    # Of an evaluated version: the evaluation.
    evaluation: str = ""
    # Of an execution: the version it built, and why it ended so.
    version: str = ""
    explanation: str = ""


def publish(tx: Transaction, project: str, kind: ChangeKind, change: Change) -> None:
    """Append a change to its project's ledger, in this transaction."""
    tx.publish(topic(project), kind.value, pack(change))


def topic(project: str) -> str:
    """Return the topic that tells of a project's changes."""
    return str(ProjectName(project))
