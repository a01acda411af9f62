"""What must be true of the deployer's tables at any moment."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlalchemy.engine import Connection

from services.common.names import DeploymentName, EnvironmentName
from services.common.sql.checks import Finding, check_common, rows
from services.deployer.domain import JournalEntry
from services.deployer.rollouts import journal
from services.deployer.rollouts.plans import EVERYTHING
from services.deployer.store.deployments import list_assigned


def check(connection: Connection) -> Iterator[Finding]:
    """Check the database: all traffic goes somewhere, and to revisions that exist."""
    yield from check_common(connection, "deployer")
    found = rows(
        connection,
        "SELECT d.name, d.desired_revision, d.live_revision, d.last_revision,"
        " (SELECT coalesce(max(number), 0) FROM revisions r WHERE r.deployment = d.name)"
        " FROM deployments d",
    )
    for name, desired, live, last, newest in found:
        if not max(desired, live) <= newest <= last:
            problem = f"wants {desired}, has {live}; its newest revision is {newest} of {last}"
            yield Finding("deployments", str(name), problem)
    yield from _journal(connection)
    for deployment, assignment in list_assigned(connection, EnvironmentName("-", "-")):
        weights = assignment.weights
        if weights and sum(weights.values()) not in {0, EVERYTHING}:
            yield Finding("weights", str(deployment), f"{sum(weights.values())} % are assigned")


def _journal(connection: Connection) -> Iterator[Finding]:
    """The journal of a deployment, which is kept whole, says which revision went live."""
    told: set[tuple[str, object]] = set()
    for topic, payload in rows(connection, "SELECT topic, payload FROM events WHERE kind = 'LIVE'"):
        entry = msgspec.msgpack.decode(payload, type=JournalEntry)
        told.add((str(topic), entry.revision))
    lives = rows(connection, "SELECT name, live_revision FROM deployments WHERE live_revision > 0")
    for name, live in lives:
        if (journal.topic(DeploymentName.parse(str(name))), live) not in told:
            yield Finding("deployments", str(name), f"{live} is live, and its journal is silent")
