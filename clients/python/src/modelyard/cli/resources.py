"""`modelyard models|versions|runs|… list|show`: one group of commands a resource."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelyard.cli.context import client
from modelyard.cli.lazy import lazy_group
from modelyard.cli.options import Deleted, Description, NewDescription
from modelyard.cli.render import leaf, moment, show_list, show_one

Protect = Annotated[
    list[str] | None,
    typer.Option(help="An alias that only who may deploy may move; repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add the groups to the command line; what is in one is made when it is asked for."""
    for name, home, does in (
        ("models", "models:register_models", "Create, change and remove models."),
        ("versions", "models:register_versions", "Find, evaluate, archive and remove versions."),
        ("runs", "runs:register", "Search, change and remove runs."),
        ("aliases", "models:register_aliases", "Show where aliases point and pointed."),
        ("artifacts", "storage:register", "Look at artifacts, verify them, mind their space."),
        ("audit", "audit:register", "See who did what, and verify that."),
        ("automations", "automations:register", "Build by rule, go live when it is better."),
        ("datasets", "datasets:register", "Look at datasets and compare them."),
        ("environments", "environments:register", "Where models go live; gates and approvals."),
        ("projects", "resources:register_projects", "Create, change and remove projects."),
        ("tokens", "access:register_tokens", "Create and revoke tokens."),
        ("members", "access:register_members", "Say who may do what in a project."),
        ("retention", "retention:register", "Set by which rules old versions go."),
        ("secrets", "secrets:register", "Set what builds are given and nobody reads."),
        ("signatures", "signatures:register", "Sign versions and verify that."),
        ("webhooks", "webhooks:register", "Have changes posted, and see what became of it."),
        ("workers", "queue:register", "Look at the workers of builds."),
    ):
        group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
        app.add_typer(group, name=name, help=does, cls=lazy_group(f"modelyard.cli.{home}"))


def register_projects(group: typer.Typer) -> None:
    """Add `projects` to the command line."""

    @group.command("list")
    def list_projects(deleted: Deleted = False) -> None:
        """List the projects in which you may read."""
        show_list(
            client().projects.list(show_deleted=deleted),
            {"PROJECT": lambda p: leaf(p.name), "CREATED": lambda p: moment(p.create_time)},
        )

    @group.command("create")
    def create_project(
        project: str, description: Description = "", protect: Protect = None
    ) -> None:
        """Create a project."""
        made = client().projects.create(
            project, description=description, protected_aliases=protect or ()
        )
        _show_project(made)

    @group.command("show")
    def show_project(project: str) -> None:
        """Show a project."""
        _show_project(client().projects.get(project))

    @group.command("update")
    def update_project(
        project: str, description: NewDescription = None, protect: Protect = None
    ) -> None:
        """Change a project; --protect replaces the list, `--protect ''` empties it."""
        aliases = None if protect is None else [alias for alias in protect if alias]
        _show_project(
            client().projects.update(project, description=description, protected_aliases=aliases)
        )

    @group.command("delete")
    def delete_project(project: str) -> None:
        """Delete a project whose models are all deleted; it can be restored until it is purged."""
        _show_project(client().projects.delete(project))

    @group.command("restore")
    def restore_project(project: str) -> None:
        """Take back that a project was deleted."""
        _show_project(client().projects.restore(project))

    @group.command("purge")
    def purge_project(project: str) -> None:
        """Remove a deleted project for ever, with all in it; its id is never given out again."""
        from modelyard.metadata.v1 import project_service_pb2  # noqa: PLC0415

        client().projects.purge(project)
        show_one(project_service_pb2.PurgeProjectResponse(), {"purged": project})


def _show_project(project: Any) -> None:
    fields = {
        "project": project.name,
        "description": project.description,
        "protected aliases": ", ".join(project.protected_aliases) or "none",
        "created": moment(project.create_time),
        "deleted": moment(project.delete_time) if project.HasField("delete_time") else "",
    }
    show_one(project, fields)
