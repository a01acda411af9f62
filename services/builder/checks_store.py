"""What must be true of the builder's tables at any moment."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.engine import Connection

from services.builder.domain import ENDED, LEASED
from services.common.sql.checks import Finding, check_common, rows


def check(connection: Connection) -> Iterator[Finding]:
    """Check the database: builds wait, are leased, or have ended, and nothing between."""
    yield from check_common(connection, "builder")
    found = rows(
        connection,
        "SELECT 'projects/' || project || '/builds/' || build, state, worker, fence, attempt,"
        " end_time, version FROM builds",
    )
    for name, state, worker, fence, attempt, end_time, version in found:
        problem = ""
        if state in LEASED and not (worker and fence and attempt):
            problem = f"is {state}, and no worker's"
        elif (state in ENDED) != (end_time is not None):
            problem = f"is {state}, but its end is {end_time}"
        elif (state == "SUCCEEDED") != bool(version):
            problem = f"is {state}, but its version is {version or 'none'}"
        if problem:
            yield Finding("builds", str(name), problem)


def succeeded(connection: Connection) -> dict[str, str]:
    """Return the versions of builds that succeeded, by build."""
    found = rows(
        connection,
        "SELECT 'projects/' || project || '/builds/' || build, version FROM builds"
        " WHERE state = 'SUCCEEDED'",
    )
    return {str(name): str(version) for name, version in found}
