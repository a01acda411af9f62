"""`modelyard models|versions|runs|… list|show`: one group of commands a resource."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard.cli.context import client
from modelyard.cli.render import leaf, moment, short_version, show_list, show_one, state

Filter = Annotated[str, typer.Option("--filter", help="Which ones, e.g. 'metrics.f1 > 0.7'.")]
Order = Annotated[str, typer.Option("--order-by", help="E.g. 'metrics.f1 desc'.")]


def register(app: typer.Typer) -> None:
    """Add the groups to the command line."""
    for name, register_group in (
        ("models", _models),
        ("versions", _versions),
        ("runs", _runs),
        ("aliases", _aliases),
        ("datasets", _datasets),
        ("environments", _environments),
        ("projects", _projects),
        ("tokens", _tokens),
    ):
        group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
        register_group(group)
        app.add_typer(group, name=name, help=f"Look at {name}.")


def _models(group: typer.Typer) -> None:
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


def _versions(group: typer.Typer) -> None:
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
                "METRICS": lambda v: _pairs(v.metrics),
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
                "params": _pairs({k: _value(v) for k, v in found.params.items()}),
                "metrics": _pairs(found.metrics),
                "environment": found.environment_digest,
                "by": found.creator,
                "created": moment(found.create_time),
            },
        )


def _runs(group: typer.Typer) -> None:
    @group.command("list")
    def list_runs(model: str = "", filter_: Filter = "", order_by: Order = "") -> None:
        """List runs, newest first."""
        from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

        show_list(
            client().runs.search(model=model or None, filter=filter_, order_by=order_by),
            {
                "RUN": lambda r: f"{r.name.split('/')[3]}/{leaf(r.name)}",
                "STATE": lambda r: state(run_pb2.RunState, r.state),
                "METRICS": lambda r: _pairs({m.key: m.last for m in r.metrics}),
                "CREATED": lambda r: moment(r.create_time),
            },
        )

    @group.command("show")
    def show_run(run: str) -> None:
        """Show a run and everything that made it, by its full name."""
        from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

        found = client().runs.get(run)
        show_one(
            found,
            {
                "run": found.name,
                "state": state(run_pb2.RunState, found.state),
                "failure": f"{found.failure.reason} {found.failure.message}".strip(),
                "params": _pairs({k: _value(v) for k, v in found.params.items()}),
                "metrics": _pairs({m.key: m.last for m in found.metrics}),
                "tags": _pairs(found.tags),
                "commit": f"{found.code.commit}{' (dirty)' if found.code.dirty else ''}",
                "python": found.environment.python_version,
                "packages": len(found.environment.packages),
                "machine": f"{found.environment.cpu_count} x {found.environment.cpu}",
                "gpus": ", ".join(found.environment.gpus) or "none",
                "datasets": ", ".join(f"{d.role}: {d.dataset_version}" for d in found.datasets),
                "image": found.image or "none",
                "created": moment(found.create_time),
            },
        )


def _aliases(group: typer.Typer) -> None:
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


def _datasets(group: typer.Typer) -> None:
    @group.command("list")
    def list_datasets() -> None:
        """List datasets."""
        show_list(
            client().datasets.list(),
            {"DATASET": lambda d: leaf(d.name), "CREATED": lambda d: moment(d.create_time)},
        )

    @group.command("show")
    def show_dataset(dataset: str) -> None:
        """List a dataset's versions, newest first."""
        show_list(
            client().datasets.versions(dataset),
            {
                "VERSION": lambda v: leaf(v.name),
                "DIGEST": lambda v: v.digest[:12],
                "ROWS": lambda v: v.row_count,
                "COLUMNS": lambda v: len(v.schema),
                "SOURCE": lambda v: v.source.uri,
                "CREATED": lambda v: moment(v.create_time),
            },
        )


def _environments(group: typer.Typer) -> None:
    @group.command("list")
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

    @group.command("create")
    def create_environment(
        environment: str,
        description: str = "",
        gate: Annotated[
            list[str] | None,
            typer.Option(help="E.g. 'accuracy>=0.9', 'better:accuracy', 'tests'; repeatable."),
        ] = None,
    ) -> None:
        """Create an environment with its gates."""
        from modelyard.cli.gates import parse_gate  # noqa: PLC0415

        gates = [parse_gate(text) for text in gate or []]
        made = client().environments.create(environment, description=description, gates=gates)
        show_one(
            made, {"environment": made.name, "gates": ", ".join(g.gate_id for g in made.gates)}
        )


def _projects(group: typer.Typer) -> None:
    @group.command("list")
    def list_projects() -> None:
        """List the projects in which you may read."""
        show_list(
            client().projects.list(),
            {"PROJECT": lambda p: leaf(p.name), "CREATED": lambda p: moment(p.create_time)},
        )

    @group.command("create")
    def create_project(project: str, description: str = "") -> None:
        """Create a project."""
        made = client().projects.create(project, description=description)
        show_one(made, {"project": made.name})


def _tokens(group: typer.Typer) -> None:
    @group.command("list")
    def list_tokens() -> None:
        """List tokens, newest first."""
        show_list(
            client().tokens.list(),
            {
                "TOKEN": lambda t: leaf(t.name),
                "PRINCIPAL": lambda t: t.principal,
                "CREATED": lambda t: moment(t.create_time),
                "EXPIRES": lambda t: moment(t.expire_time),
                "REVOKED": lambda t: moment(t.revoke_time),
            },
        )

    @group.command("create")
    def create_token(
        principal: str,
        role: Annotated[
            list[str] | None, typer.Option(help="project=role, e.g. default=builder; repeatable.")
        ] = None,
    ) -> None:
        """Create a token; its secret is shown once."""
        roles = dict(text.partition("=")[::2] for text in role or [])
        made = client().tokens.create(principal, roles=roles)
        show_one(made, {"token": made.token.name, "secret": made.secret})

    @group.command("revoke")
    def revoke_token(token: str) -> None:
        """Revoke a token; it stops working within seconds."""
        revoked = client().tokens.revoke(token)
        show_one(revoked, {"token": revoked.name, "revoked": moment(revoked.revoke_time)})


def _value(value: Any) -> object:
    from modelyard._values import decode_value  # noqa: PLC0415

    return decode_value(value)


def _pairs(mapping: Any) -> str:
    from modelyard.cli.render import text  # noqa: PLC0415

    return ", ".join(f"{key}={text(value)}" for key, value in sorted(mapping.items()))
