"""`modelyard explain`: what changed between what is live and what was before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.compare import show_comparison
from modelyard.cli.context import as_json, client
from modelyard.cli.deploying import Environment
from modelyard.cli.render import json_of, moment, short_version
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from modelyard.deployer.v1 import deployment_pb2


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(explain)


def explain(
    model: str,
    environment: Environment,
    revision: Annotated[
        int, typer.Option(help="Hold what is live against this revision; else the one before.")
    ] = 0,
) -> None:
    """Say what changed from the version that was live before to the one that is: code, data, …."""
    connection = client()
    lived = [
        found
        for found in connection.deployments.history(model, environment=environment)
        if found.version and found.HasField("live_time")
    ]
    live = connection.deployments.get(model, environment=environment).live_revision
    now = next((found for found in lived if found.number == live), None)
    if now is None:
        problem = f"no version of {model} is live in {environment}"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD")
    before = next((found for found in lived if _is_before(found, now, revision)), None)
    if before is None:
        which = f"revision {revision}" if revision else "no other version"
        raise InvalidArgumentError(f"{which} was ever live before", reason="INVALID_FIELD")
    answer = connection.compare([before.version, now.version])
    if as_json():
        print(json_of(answer))
        return
    print(
        f"{short_version(now.version)} took over from {short_version(before.version)} at "
        f"{moment(now.live_time)}, by {now.actor}: {now.reason or 'no reason given'}"
    )
    show_comparison(answer)


def _is_before(found: deployment_pb2.Revision, now: deployment_pb2.Revision, revision: int) -> bool:
    """Say whether it is the revision asked for, or the last one with another version."""
    if revision:
        return found.number == revision
    return found.number < now.number and found.version != now.version
