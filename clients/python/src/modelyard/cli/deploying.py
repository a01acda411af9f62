"""What the commands about deployments share: their options, and how an order's outcome is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json
from modelyard.cli.render import clean, console, leaf, short_version, show_one, state

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.deployer.v1 import deployment_pb2

Environment = Annotated[str, typer.Option("--env", "-e", help="The environment.")]
Reason = Annotated[str, typer.Option(help="Why, for the history.")]
Wait = Annotated[bool, typer.Option(help="Watch until it is live, or failed.")]


def outcome(connection: Client, deployment: deployment_pb2.Deployment, *, wait: bool) -> int:
    """Show how an order went; return the exit code."""
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    revision = deployment.desired_revision
    if wait:
        _follow(connection, deployment.name)
        deployment = connection.deployments.get(deployment.name)
    show(deployment)
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


def show(deployment: deployment_pb2.Deployment) -> None:
    """Show a deployment and what runs in it."""
    from modelyard.deployer.v1 import deployment_pb2 as pb  # noqa: PLC0415

    variants = "; ".join(
        f"{short_version(v.version)} {share_of(v)} {state(pb.VariantState, v.state).lower()}, "
        f"{ready_of(v)} ready" + (f" ({clean(v.scaling)})" if v.scaling else "")
        for v in deployment.variants
    )
    show_one(
        deployment,
        {
            "deployment": f"{leaf(deployment.name)} in {deployment.name.split('/')[3]}",
            "state": state(pb.DeploymentState, deployment.state),
            "failure": f"{deployment.failure.reason} {deployment.failure.message}".strip(),
            "live": live_version(deployment),
            "rollout": progress_of(deployment),
            "running": variants,
        },
    )


def live_version(deployment: deployment_pb2.Deployment) -> str:
    """Return the version that answers, as `model/number`."""
    live = [r.version for r in deployment.revisions if r.number == deployment.live_revision]
    return short_version(live[0]) if live else "-"


def share_of(variant: deployment_pb2.Variant) -> str:
    """Say which requests a variant gets: a share, copies, or those with a header."""
    if variant.mirror_percent:
        return f"shadow {variant.mirror_percent} %"
    if variant.header_match.name:
        return f"{clean(variant.header_match.name)}={clean(variant.header_match.value)}"
    return f"{variant.weight} %"


def ready_of(variant: deployment_pb2.Variant) -> str:
    """Say how many model servers are ready, and of how many."""
    ready, wanted = variant.ready_replica_count, variant.wanted_replica_count
    return f"{ready}/{wanted}" if wanted else str(ready)


def progress_of(deployment: deployment_pb2.Deployment) -> str:
    """Say in a line where an unfinished rollout stands; empty when there is none."""
    from modelyard.deployer.v1 import rollout_pb2  # noqa: PLC0415

    progress = deployment.rollout
    if not progress.revision:
        return ""
    wait = state(rollout_pb2.RolloutWait, progress.wait).lower()
    waits = f", waits for {wait}" if progress.wait else ""
    analysis = f" ({clean(progress.analysis)})" if progress.analysis else ""
    return f"step {progress.step} of {progress.step_count}{waits}{analysis}"
