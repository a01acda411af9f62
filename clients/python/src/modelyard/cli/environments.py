"""`modelyard environments`: where models go live, the gates in front, and who approves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.deploying import Reason
from modelyard.cli.options import Description, NewDescription
from modelyard.cli.render import leaf, moment, short_version, show_list, show_one

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.deployer.v1 import environment_pb2


def register(group: typer.Typer) -> None:
    """Add `environments` to the command line."""
    group.command("list")(list_environments)
    group.command("create")(create_environment)
    group.command("update")(update_environment)
    group.command("approve")(approve)
    group.command("withdraw")(withdraw)
    group.command("approvals")(approvals)


def list_environments() -> None:
    """List environments."""
    show_list(
        client().environments.list(),
        {
            "ENVIRONMENT": lambda e: leaf(e.name),
            "ADDRESS": lambda e: e.address or "-",
            "GATES": lambda e: ", ".join(gate.gate_id for gate in e.gates),
        },
    )


def create_environment(
    environment: str,
    description: Description = "",
    gate: Annotated[
        list[str] | None,
        typer.Option(help="E.g. 'accuracy>=0.9', 'better:accuracy', 'tests'; repeatable."),
    ] = None,
    external: Annotated[
        bool, typer.Option("--external", help="A controller that is not ours serves it.")
    ] = False,
) -> None:
    """Create an environment with its gates, written as docs/deployments.md says."""
    connection = client()
    made = connection.environments.create(
        environment,
        description=description,
        gates=_gates(connection, gate),
        external=external,
    )
    _show_environment(made)


def update_environment(
    environment: str,
    description: NewDescription = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="All of the gates from now on; repeatable.")
    ] = None,
    no_gates: Annotated[bool, typer.Option("--no-gates", help="Drop every gate.")] = False,
) -> None:
    """Change an environment's description or its gates."""
    connection = client()
    gates = _gates(connection, gate) if gate or no_gates else None
    _show_environment(
        connection.environments.update(environment, description=description, gates=gates)
    )


def approve(environment: str, version: str, reason: Reason = "") -> None:
    """Approve a version for an environment, as oneself."""
    made = client().environments.approve(environment, version, reason=reason)
    show_one(made, {"version": short_version(made.version), "by": made.principal})


def withdraw(environment: str, version: str) -> None:
    """Take one's own approval of a version back."""
    client().environments.withdraw(environment, version)


def approvals(environment: str, version: str) -> None:
    """List who approved a version for an environment."""
    show_list(
        client().environments.approvals(environment, version),
        {
            "BY": lambda a: a.principal,
            "WHEN": lambda a: moment(a.create_time),
            "REASON": lambda a: a.reason,
        },
    )


def _gates(connection: Client, texts: list[str] | None) -> list[environment_pb2.Gate]:
    from modelyard.cli.gates import parse_gate  # noqa: PLC0415

    return [parse_gate(text, project=connection.project) for text in texts or []]


def _show_environment(made: environment_pb2.Environment) -> None:
    gates = ", ".join(gate.gate_id for gate in made.gates)
    show_one(made, {"environment": made.name, "address": made.address, "gates": gates})
