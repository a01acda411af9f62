"""`modelyard deploy`, `rollback`, `undeploy` and `deployments`: live, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import amounts, rollouts
from modelyard.cli import deploy_options as options
from modelyard.cli.context import client
from modelyard.cli.deploying import (
    Environment,
    Reason,
    Wait,
    live_version,
    outcome,
    show,
)
from modelyard.cli.groups import Group
from modelyard.cli.render import leaf, moment, short_version, show_list, state
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard import Client
    from modelyard.deployer.v1 import environment_pb2


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (deploy, rollback, undeploy):
        app.command()(command)
    group = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_deployments)
    group.command("show")(show_deployment)
    group.command("history")(history)
    rollouts.register(group)
    app.add_typer(group, name="deployments", help="Look at deployments, steer and try versions.")


def deploy(
    version: Annotated[
        str, typer.Argument(help="The version; with --from the model, unless there is one only.")
    ] = "",
    *,
    environment: Environment,
    from_: Annotated[
        str, typer.Option("--from", help="Take what is live in this environment.")
    ] = "",
    canary: options.Canary = "",
    hold: options.Hold = "0",
    manual: options.Manual = False,
    min_requests: options.MinRequests = 50,
    max_error_rate: options.MaxErrorRate = None,
    max_error_rate_increase: options.MaxErrorRateIncrease = None,
    max_p95: options.MaxP95 = None,
    max_p95_ratio: options.MaxP95Ratio = None,
    progress_timeout: options.ProgressTimeout = "",
    keep_warm: options.KeepWarm = False,
    replicas: options.Replicas = 1,
    workers: options.Workers = 1,
    concurrency: options.Concurrency = 0,
    queue: options.Queue = 0,
    cpu: options.Cpu = 0.0,
    memory: options.Memory = "",
    sample: options.Sample = 0.0,
    batch: options.Batch = 0,
    autoscale: options.Autoscale = "",
    reason: Reason = "",
    wait: Wait = True,
    check: Annotated[bool, typer.Option(help="Only say how the gates judge it.")] = False,
) -> int:
    """Put a version into an environment: start it, shift the requests, drain the old one."""
    connection = client()
    version = _wanted(connection, version, from_)
    if check:
        return _show_verdicts(connection.deployments.check(version, environment=environment))
    ordered = connection.deployments.deploy(
        version,
        environment=environment,
        canary=options.shares_of(canary),
        hold=amounts.duration(hold),
        manual=manual,
        analysis=options.analysis_of(
            min_requests, max_error_rate, max_error_rate_increase, max_p95, max_p95_ratio
        ),
        progress_timeout=amounts.duration(progress_timeout) if progress_timeout else None,
        keep_warm=keep_warm,
        serving=options.serving_of(
            *(replicas, workers, concurrency, queue),
            cpu=cpu,
            memory=memory,
            sample=sample,
            batch=batch,
            autoscale=autoscale,
        ),
        reason=reason,
    )
    return outcome(connection, ordered, wait=wait)


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
    return outcome(connection, ordered, wait=wait)


def undeploy(
    model: str,
    environment: Environment,
    reason: Reason = "",
    wait: Wait = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Serve a model no more in an environment; its history stays."""
    connection = client()
    deployment = connection.deployments.get(model, environment=environment)
    if deployment.live_revision and not yes:
        typer.confirm(
            f"{live_version(deployment)} answers requests in {leaf(environment)}; stop it?",
            abort=True,
            err=True,
        )
    stopped = connection.deployments.stop(model, environment=environment, reason=reason)
    return outcome(connection, stopped, wait=wait)


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
            "LIVE": live_version,
            "UPDATED": lambda d: moment(d.update_time),
        },
    )


def show_deployment(model: str, environment: Environment) -> None:
    """Show a deployment and what runs in it."""
    show(client().deployments.get(model, environment=environment))


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


def _wanted(connection: Client, version: str, environment: str) -> str:
    """Return the version that is to be deployed: the one named, or what is live elsewhere."""
    if environment:
        return _live_in(connection, version, environment)
    if not version:
        problem = "name a version, or --from an environment"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD")
    return version


def _live_in(connection: Client, model: str, environment: str) -> str:
    """Return the version that answers in an environment, of a model or of the only one."""
    if not model:
        found = list(connection.deployments.list(environment=environment))
        if len(found) != 1:
            names = ", ".join(leaf(deployment.name) for deployment in found) or "none"
            problem = f"say which model of {environment} is meant: {names}"
            raise InvalidArgumentError(problem, reason="INVALID_FIELD")
        model = found[0].model
    deployment = connection.deployments.get(model, environment=environment)
    live = [r.version for r in deployment.revisions if r.number == deployment.live_revision]
    if not live:
        problem = f"no version of {leaf(model)} is live in {environment}"
        raise InvalidArgumentError(problem, reason="INVALID_FIELD")
    return live[0]


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
