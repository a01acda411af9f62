"""The journal: what every change of a deployment leaves behind, in its own transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from services.common.names import DeploymentName
from services.common.sql.database import Transaction
from services.common.sql.outbox import Event
from services.deployer.domain import Deployment, EventType, JournalEntry, Step
from services.deployer.rollouts import rules
from services.deployer.store import deployments

ASSIGNMENTS = "assignments"
"""The topic of changed assignments; a payload is the deployment's name."""
WORK = "work"
"""The topic that wakes reconcilers; a payload is the deployment's name."""


@dataclass(frozen=True, slots=True)
class Told:
    """A journal entry with the moment it was written."""

    time: datetime
    entry: JournalEntry


def topic(name: DeploymentName) -> str:
    """Return the topic of a deployment's journal."""
    return f"deployments/{name.project}/{name.environment}/{name.deployment}"


def publish(tx: Transaction, name: DeploymentName, entries: Iterable[JournalEntry]) -> None:
    """Append entries to a deployment's journal."""
    for entry in entries:
        tx.publish(topic(name), entry.type.value, msgspec.msgpack.encode(entry))


def read(event: Event) -> Told:
    """Read a journal entry back."""
    return Told(event.time, msgspec.msgpack.decode(event.payload, type=JournalEntry))


def record(tx: Transaction, before: Deployment, step: Step) -> Deployment:
    """Write a step: the deployment, its journal, and a ring for whoever has to act on it."""
    after = step.deployment
    settled = rules.is_settled(after)
    deployments.save_deployment(tx.connection, before, after, settled=settled)
    publish(tx, after.name, step.entries)
    if after.assignment.generation != before.assignment.generation:
        tx.publish(ASSIGNMENTS, "changed", str(after.name).encode())
    if not settled and not rules.only_counted(before, after):  # counts are looked at by the tick
        tx.publish(WORK, "changed", str(after.name).encode())
    return after


def refuse(tx: Transaction, name: DeploymentName, *, message: str, actor: str) -> None:
    """Note that the gates refused a wish."""
    publish(tx, name, [JournalEntry(EventType.GATE_REFUSED, 0, message, actor)])
