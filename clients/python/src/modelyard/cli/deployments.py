"""`modelyard deploy`, `rollback`, `undeploy` and `deployments`: live, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import (
    clean,
    console,
    leaf,
    moment,
    short_version,
    show_list,
    show_one,
    state,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard import Client
    from modelyard.deployer.v1 import deployment_pb2, environment_pb2

Environment = Annotated[str, typer.Option("--env", "-e", help="The environment.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
Wait = Annotated[bool, typer.Option(help="Watch until it is live, or failed.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (deploy, rollback, undeploy):
        app.command()(command)
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_deployments)
    group.command("show")(show_deployment)
    group.command("history")(history)
    app.add_typer(group, name="deployments", help="Look at deployments.")


def deploy(
    version: str,
    environment: Environment,
    reason: Reason = "",
    wait: Wait = True,
    check: Annotated[bool, typer.Option(help="Only say how the gates judge it.")] = False,
) -> int:
    """Put a version into an environment: start it, shift the requests, drain the old one."""
    connection = client()
    if check:
        return _show_verdicts(connection.deployments.check(version, environment=environment))
    ordered = connection.deployments.deploy(version, environment=environment, reason=reason)
    return _outcome(connection, ordered, wait=wait)


def rollback(
    model: str,
    environment: Environment,
    revision: Annotated[int, typer.Option(help="The revision; else the one live before.")] = 0,
    reason: Reason = "",
    wait: Wait = True,
) -> int:
    """Go back to what was live before."""
    connection = client()
    ordered = connection.deployments.rollback(
        model, environment=environment, revision=revision, reason=reason
    )
    return _outcome(connection, ordered, wait=wait)


def undeploy(model: str, environment: Environment, reason: Reason = "", wait: Wait = True) -> int:
    """Serve a model no more in an environment; its history stays."""
    connection = client()
    stopped = connection.deployments.stop(model, environment=environment, reason=reason)
    return _outcome(connection, stopped, wait=wait)


def list_deployments(
    environment: Annotated[str, typer.Option("--env", "-e", help="Only this one.")] = "",
) -> None:
    """List deployments."""
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    show_list(
        client().deployments.list(environment=environment or None),
        {
            "MODEL": lambda d: leaf(d.name),
            "ENVIRONMENT": lambda d: d.name.split("/")[3],
            "STATE": lambda d: state(pb.DeploymentState, d.state),
            "LIVE": _live_version,
            "UPDATED": lambda d: moment(d.update_time),
        },
    )


def show_deployment(model: str, environment: Environment) -> None:
    """Show a deployment and what runs in it."""
    _show(client().deployments.get(model, environment=environment))


def history(model: str, environment: Environment) -> None:
    """Show every revision: who, when, why, and how it went."""
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    show_list(
        client().deployments.history(model, environment=environment),
        {
            "REVISION": lambda r: r.number,
            "VERSION": lambda r: short_version(r.version) or "-",
            "CAUSE": lambda r: state(pb.RevisionCause, r.cause).lower(),
            "OUTCOME": lambda r: state(pb.RevisionOutcome, r.outcome).lower(),
            "BY": lambda r: r.actor,
            "WHEN": lambda r: moment(r.create_time),
            "REASON": lambda r: r.reason or r.failure.message,
        },
    )


def _outcome(connection: Client, deployment: deployment_pb2.Deployment, *, wait: bool) -> int:
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    revision = deployment.desired_revision
    if wait:
        _follow(connection, deployment.name)
        deployment = connection.deployments.get(deployment.name)
    _show(deployment)
    settled = (pb.DEPLOYMENT_STATE_LIVE, pb.DEPLOYMENT_STATE_STOPPED)
    met = deployment.state in settled and deployment.desired_revision == revision
    return 0 if met or not wait else 1


def _follow(connection: Client, name: str) -> None:
    """Show a deployment's journal until it settles."""
    from rich.text import Text  # noqa: PLC0415

    out = console()
    for event in connection.deployments.follow(name):
        if not as_json():
            out.print(Text(f"  {event.type.lower().replace('_', ' ')}  {clean(event.message)}"))


def _show(deployment: deployment_pb2.Deployment) -> None:
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    variants = ", ".join(
        f"{short_version(v.version)} {v.weight} % {state(pb.VariantState, v.state).lower()}"
        for v in deployment.variants
    )
    show_one(
        deployment,
        {
            "deployment": f"{leaf(deployment.name)} in {deployment.name.split('/')[3]}",
            "state": state(pb.DeploymentState, deployment.state),
            "failure": f"{deployment.failure.reason} {deployment.failure.message}".strip(),
            "live": _live_version(deployment),
            "running": variants,
        },
    )


def _live_version(deployment: deployment_pb2.Deployment) -> str:
    live = [r.version for r in deployment.revisions if r.number == deployment.live_revision]
    return short_version(live[0]) if live else "-"


def _show_verdicts(answer: Sequence[environment_pb2.GateVerdict]) -> int:
    verdicts = list(answer)
    show_list(
        verdicts,
        {
            "GATE": lambda v: v.gate_id,
            "VERDICT": lambda v: "passes" if v.passed else "refuses",
            "WHY": lambda v: v.explanation,
        },
    )
    return 0 if all(verdict.passed for verdict in verdicts) else 1
