"""What must be true of the deployer's tables at any moment."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.engine import Connection

from services.common.checks import Finding, check_common, rows
from services.common.names import EnvironmentName
from services.deployer.plans import EVERYTHING
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
    for deployment, assignment in list_assigned(connection, EnvironmentName("-", "-")):
        weights = assignment.weights
        if weights and sum(weights.values()) not in {0, EVERYTHING}:
            yield Finding("weights", str(deployment), f"{sum(weights.values())} % are assigned")
