"""`modelyard models`, `versions` and `aliases`: looking at them, and minding them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.builds import image, test_counts
from modelyard.cli.context import as_json, client
from modelyard.cli.options import (
    Deleted,
    Description,
    Filter,
    Labels,
    NewDescription,
    Order,
    mapping,
    number_pair,
    utc,
)
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

if TYPE_CHECKING:
    from modelyard import Client
    from modelyard.metadata.v1 import version_pb2

Maximize = Annotated[list[str] | None, typer.Option(help="A metric to maximise; repeatable.")]
Minimize = Annotated[list[str] | None, typer.Option(help="A metric to minimise; repeatable.")]
AliasOf = Annotated[str | None, typer.Argument(help="An alias of the model.")]


def register_models(group: typer.Typer) -> None:
    """Add `models` to the command line."""

    @group.command("list")
    def list_models(
        filter_: Filter = "",
        order_by: Order = "",
        deleted: Deleted = False,
    ) -> None:
        """List models."""
        show_list(
            client().models.list(filter=filter_, order_by=order_by, show_deleted=deleted),
            {
                "MODEL": lambda m: leaf(m.name),
                "DESCRIPTION": lambda m: m.description.partition("\n")[0][:60],
                "CREATED": lambda m: moment(m.create_time),
            },
        )

    @group.command("show")
    def show_model(model: str) -> None:
        """Show a model."""
        _show_model(client().models.get(model))

    @group.command("create")
    def create_model(
        model: str,
        description: Description = "",
        maximize: Maximize = None,
        minimize: Minimize = None,
    ) -> None:
        """Create a model and say which of its metrics are better high or low."""
        goals = _goals(maximize, minimize)
        made = client().models.create(model, description=description, metric_goals=goals)
        show_one(made, {"model": made.name})

    group.command("update")(_update_model)
    _register_removal(group)


def _update_model(
    model: str,
    *,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    description: NewDescription = None,
    label: Labels = None,
    maximize: Maximize = None,
    minimize: Minimize = None,
) -> None:
    """Change a model; labels replace all that it has, goals are added to those it has."""
    found = client().models.get(model)
    goals = {k: "maximize" if goal == 1 else "minimize" for k, goal in found.metric_goals.items()}
    changed = client().models.update(
        model,
        display_name=name,
        description=description,
        labels=mapping(label),
        metric_goals=goals | _goals(maximize, minimize) if maximize or minimize else None,
        etag=found.etag,
    )
    _show_model(changed)


def _goals(maximize: list[str] | None, minimize: list[str] | None) -> dict[str, str]:
    return dict.fromkeys(maximize or [], "maximize") | dict.fromkeys(minimize or [], "minimize")


def _register_removal(group: typer.Typer) -> None:
    @group.command("delete")
    def delete(model: str) -> None:
        """Delete a model that nothing needs; it can be restored until it is purged."""
        _show_model(client().models.delete(model))

    @group.command("restore")
    def restore(model: str) -> None:
        """Take back that a model was deleted."""
        _show_model(client().models.restore(model))

    @group.command("purge")
    def purge(model: str) -> None:
        """Remove a deleted model for ever, with its versions and runs."""
        from modelyard.metadata.v1 import model_service_pb2  # noqa: PLC0415

        client().models.purge(model)
        show_one(model_service_pb2.PurgeModelResponse(), {"purged": model})


def _show_model(model: Any) -> None:
    goals = ", ".join(
        f"{key} {'up' if goal == 1 else 'down'}" for key, goal in sorted(model.metric_goals.items())
    )
    fields = {
        "model": model.name,
        "name": model.display_name,
        "description": model.description,
        "labels": pairs(model.labels),
        "metric goals": goals,
        "created": moment(model.create_time),
        "deleted": _if_set(model, "delete_time"),
    }
    show_one(model, fields)


def register_versions(group: typer.Typer) -> None:
    """Add `versions` to the command line."""

    @group.command("list")
    def list_versions(
        model: Annotated[str, typer.Argument(help="A model; else all of them.")] = "",
        filter_: Filter = "",
        order_by: Order = "",
        deleted: Deleted = False,
    ) -> None:
        """List versions, newest first."""
        from modelyard.metadata.v1 import version_pb2  # noqa: PLC0415

        show_list(
            client().versions.list(
                model or None, filter=filter_, order_by=order_by, show_deleted=deleted
            ),
            {
                "VERSION": lambda v: short_version(v.name),
                "STATE": lambda v: state(version_pb2.VersionState, v.state),
                "ALIASES": lambda v: ", ".join(v.aliases),
                "METRICS": lambda v: pairs(v.metrics),
                "BY": lambda v: v.creator,
                "CREATED": lambda v: moment(v.create_time),
            },
        )

    group.command("show")(_show_version)
    _register_upkeep(group)
    _register_evaluations(group)


def _show_version(version: str) -> None:
    """Show a version: `churn/7`, `churn@production` or `churn` (the newest)."""
    from modelyard.metadata.v1 import version_pb2  # noqa: PLC0415

    connection = client()
    found = connection.versions.resolve(version)
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
            **({} if as_json() else _build_facts(connection, found)),
            "params": pairs({k: value(v) for k, v in found.params.items()}),
            "metrics": pairs(found.metrics),
            "environment": found.environment_digest,
            "image reference": found.image,
            "label": found.label,
            "labels": pairs(found.labels),
            "license": found.license,
            "description": found.description,
            "card": found.card,
            "archived": _if_set(found, "archive_time"),
            "deleted": _if_set(found, "delete_time"),
            "by": found.creator,
            "created": moment(found.create_time),
        },
    )


def _build_facts(connection: Client, version: version_pb2.Version) -> dict[str, object]:
    """Return what its bundle and its build say of a version, for people."""
    from modelyard._resources.evidence import SIGNED_FILE  # noqa: PLC0415
    from modelyard.errors import NotFoundError  # noqa: PLC0415

    schema = connection.versions.schema(version.name) or {}
    facts: dict[str, object] = {key: _tensors(schema.get(key, ())) for key in ("inputs", "outputs")}
    if not version.build:
        return facts
    try:
        build = connection.builds.get(version.build)
    except NotFoundError:
        return facts
    facts |= {"image": image(build), "evidence": build.evidence}
    if build.evidence:
        files = {file.path for file in connection.artifacts.files(build.evidence)}
        facts["provenance"] = "signed" if SIGNED_FILE in files else "not signed"
    return {"tests": test_counts(build), **facts}


def _tensors(tensors: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{t['name']} {t['datatype']} {t['shape']}" for t in tensors)


def _tests(
    version: str,
    to: Annotated[Path | None, typer.Option("--to", help="A file; else standard output.")] = None,
) -> None:
    """Write what a version's own tests said when it was built, as JUnit XML."""
    text = client().versions.test_report(version)
    if to is None:
        typer.echo(text)
    else:
        to.write_text(text)


def _bom(
    version: str,
    to: Annotated[Path | None, typer.Option("--to", help="A file; else standard output.")] = None,
) -> None:
    """Write what a version is made of as CycloneDX 1.6: files, packages, data, code."""
    text = client().versions.bom(version)
    if to is None:
        typer.echo(text)
    else:
        to.write_text(text + "\n")


def _register_upkeep(group: typer.Typer) -> None:
    @group.command("update")
    def update(
        version: str,
        description: NewDescription = None,
        license_: Annotated[str | None, typer.Option("--license", help="E.g. MIT.")] = None,
        card: Annotated[typer.FileText | None, typer.Option(help="A Markdown file.")] = None,
        label: Labels = None,
    ) -> None:
        """Change a version's description, labels, card or licence."""
        changed = client().versions.update(
            version,
            description=description,
            license=license_,
            card=None if card is None else card.read(),
            labels=mapping(label),
        )
        _show_change(changed)

    group.command("bom")(_bom)
    group.command("tests")(_tests)

    @group.command("archive")
    def archive(version: str) -> None:
        """Archive a version: it stays, but can no longer be chosen."""
        _show_change(client().versions.archive(version))

    @group.command("unarchive")
    def unarchive(version: str) -> None:
        """Take back that a version was archived."""
        _show_change(client().versions.unarchive(version))

    @group.command("delete")
    def delete(version: str) -> None:
        """Delete a version; it can be restored until it is purged."""
        _show_change(client().versions.delete(version))

    @group.command("restore")
    def restore(version: str) -> None:
        """Take back that a version was deleted."""
        _show_change(client().versions.restore(version))

    @group.command("purge")
    def purge(version: str) -> None:
        """Remove a deleted version for ever, with its bytes."""
        from modelyard.metadata.v1 import model_service_pb2  # noqa: PLC0415

        client().versions.purge(version)
        show_one(model_service_pb2.PurgeVersionResponse(), {"purged": version})


def _register_evaluations(group: typer.Typer) -> None:
    @group.command("evaluate")
    def evaluate(
        version: str,
        metric: Annotated[list[str], typer.Argument(help="E.g. f1=0.91.")],
        dataset: Annotated[str, typer.Option(help="The dataset version's full name.")] = "",
        notes: Annotated[str, typer.Option(help="What is worth knowing of it.")] = "",
    ) -> None:
        """Record what was measured of a version after the fact."""
        metrics = dict(number_pair(text) for text in metric)
        made = client().versions.evaluate(version, metrics, dataset_version=dataset, notes=notes)
        show_one(made, {"evaluation": made.name, "metrics": pairs(made.metrics)})

    @group.command("evaluations")
    def evaluations(version: str) -> None:
        """List a version's evaluations, newest first."""
        show_list(
            client().versions.evaluations(version),
            {
                "WHEN": lambda e: moment(e.evaluate_time),
                "METRICS": lambda e: pairs(e.metrics),
                "DATASET": lambda e: e.dataset_version,
                "BY": lambda e: e.creator,
                "NOTES": lambda e: e.notes,
            },
        )


def _show_change(version: Any) -> None:
    fields = {
        "version": short_version(version.name),
        "archived": _if_set(version, "archive_time"),
        "deleted": _if_set(version, "delete_time"),
        "etag": version.etag,
    }
    show_one(version, fields)


def _if_set(message: Any, field: str) -> str:
    return moment(getattr(message, field)) if message.HasField(field) else ""


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

    @group.command("show")
    def show_alias(
        model: str,
        alias: AliasOf = None,
        as_of: Annotated[
            datetime | None,
            typer.Option(parser=utc, metavar="<time>", help="As it was then; UTC unless it says."),
        ] = None,
    ) -> None:
        """Show where an alias, `churn production` or `churn@production`, points or pointed."""
        found = client().aliases.get(model, alias, as_of=as_of)
        fields = {
            "alias": leaf(found.name),
            "version": short_version(found.version),
            "since": moment(found.update_time),
        }
        show_one(found, fields)

    @group.command("history")
    def history(model: str, alias: AliasOf = None) -> None:
        """Show where an alias, or each of a model's, pointed; newest change first."""
        of_model, _, named = model.partition("@")
        show_list(
            client().aliases.history(of_model, alias or named or "-"),
            {
                "WHEN": lambda c: moment(c.change_time),
                "ALIAS": lambda c: leaf(c.alias),
                "FROM": lambda c: short_version(c.old_version) or "-",
                "TO": lambda c: short_version(c.new_version) or "-",
                "BY": lambda c: c.actor,
                "REASON": lambda c: c.reason,
            },
        )

    group.command("delete")(_delete_alias)


def _delete_alias(
    model: str,
    alias: AliasOf = None,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
) -> None:
    """Delete an alias, `churn production` or `churn@production`; its history stays."""
    from modelyard.metadata.v1 import model_service_pb2  # noqa: PLC0415

    client().aliases.delete(model, alias, reason=reason)
    named = f"{model}@{alias}" if alias else model
    show_one(model_service_pb2.DeleteAliasResponse(), {"deleted": named})
