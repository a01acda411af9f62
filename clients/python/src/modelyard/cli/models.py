"""`modelyard models`, `versions` and `aliases`: looking at them, and minding them."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.options import Filter, Order
from modelyard.cli.render import (
    leaf,
    moment,
    pairs,
    short_version,
    show_list,
    show_one,
    state,
    value,
)


def register_models(group: typer.Typer) -> None:
    """Add `models` to the command line."""

    @group.command("list")
    def list_models(filter_: Filter = "", order_by: Order = "") -> None:
        """List models."""
        show_list(
            client().models.list(filter=filter_, order_by=order_by),
            {
                "MODEL": lambda m: leaf(m.name),
                "DESCRIPTION": lambda m: m.description.partition("\n")[0][:60],
                "CREATED": lambda m: moment(m.create_time),
            },
        )

    @group.command("show")
    def show_model(model: str) -> None:
        """Show a model."""
        found = client().models.get(model)
        goals = ", ".join(
            f"{key} {'up' if goal == 1 else 'down'}" for key, goal in found.metric_goals.items()
        )
        show_one(
            found,
            {
                "model": found.name,
                "description": found.description,
                "metric goals": goals,
                "created": moment(found.create_time),
            },
        )

    @group.command("create")
    def create_model(
        model: str,
        description: str = "",
        maximize: Annotated[list[str] | None, typer.Option(help="Metrics to maximise.")] = None,
        minimize: Annotated[list[str] | None, typer.Option(help="Metrics to minimise.")] = None,
    ) -> None:
        """Create a model and say which of its metrics are better high or low."""
        goals = dict.fromkeys(maximize or [], "maximize") | dict.fromkeys(
            minimize or [], "minimize"
        )
        made = client().models.create(model, description=description, metric_goals=goals)
        show_one(made, {"model": made.name})


def register_versions(group: typer.Typer) -> None:
    """Add `versions` to the command line."""

    @group.command("list")
    def list_versions(
        model: Annotated[str, typer.Argument(help="A model; else all of them.")] = "",
        filter_: Filter = "",
        order_by: Order = "",
    ) -> None:
        """List versions, newest first."""
        from modelyard.metadata.v1 import version_pb2  # noqa: PLC0415

        show_list(
            client().versions.list(model or None, filter=filter_, order_by=order_by),
            {
                "VERSION": lambda v: short_version(v.name),
                "STATE": lambda v: state(version_pb2.VersionState, v.state),
                "ALIASES": lambda v: ", ".join(v.aliases),
                "METRICS": lambda v: pairs(v.metrics),
                "BY": lambda v: v.creator,
                "CREATED": lambda v: moment(v.create_time),
            },
        )

    @group.command("show")
    def show_version(version: str) -> None:
        """Show a version: `churn/7`, `churn@production` or `churn` (the newest)."""
        from modelyard.metadata.v1 import version_pb2  # noqa: PLC0415

        found = client().versions.resolve(version)
        show_one(
            found,
            {
                "version": short_version(found.name),
                "state": state(version_pb2.VersionState, found.state),
                "aliases": ", ".join(found.aliases),
                "artifact": found.artifact,
                "run": found.run,
                "build": found.build,
                "tests passed": found.tests_passed,
                "params": pairs({k: value(v) for k, v in found.params.items()}),
                "metrics": pairs(found.metrics),
                "environment": found.environment_digest,
                "by": found.creator,
                "created": moment(found.create_time),
            },
        )


def register_aliases(group: typer.Typer) -> None:
    """Add `aliases` to the command line."""

    @group.command("list")
    def list_aliases(model: str) -> None:
        """List a model's aliases."""
        show_list(
            client().aliases.list(model),
            {
                "ALIAS": lambda a: leaf(a.name),
                "VERSION": lambda a: short_version(a.version),
                "MOVED": lambda a: moment(a.update_time),
            },
        )

    @group.command("history")
    def history(model: str, alias: str = "-") -> None:
        """Show where a model's aliases pointed, newest change first."""
        show_list(
            client().aliases.history(model, alias),
            {
                "WHEN": lambda c: moment(c.change_time),
                "ALIAS": lambda c: leaf(c.alias),
                "FROM": lambda c: short_version(c.old_version) or "-",
                "TO": lambda c: short_version(c.new_version) or "-",
                "BY": lambda c: c.actor,
                "REASON": lambda c: c.reason,
            },
        )
