"""`modelyard runs`: looking at runs, and their upkeep."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from modelyard.cli.context import client
from modelyard.cli.options import Deleted, Filter, Order, Tags, mapping
from modelyard.cli.render import (
    leaf,
    moment,
    pairs,
    seconds_between,
    show_list,
    show_one,
    state,
    value,
)


def register(group: typer.Typer) -> None:
    """Add `runs` to the command line."""

    @group.command("list")
    def list_runs(
        model: Annotated[str, typer.Argument(help="A model; else all of them.")] = "",
        group_: Annotated[str, typer.Option("--group", help="Those of one group.")] = "",
        filter_: Filter = "",
        order_by: Order = "",
        deleted: Deleted = False,
    ) -> None:
        """List runs, newest first."""
        from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

        # A filter of its own goes as it is: the server says where in it something is wrong.
        in_group = f"group = {json.dumps(group_)}"
        both = f"({filter_}) AND {in_group}" if filter_ else in_group
        found = client().runs.search(
            model=model or None,
            filter=both if group_ else filter_,
            order_by=order_by,
            show_deleted=deleted,
        )
        show_list(
            found,
            {
                "RUN": lambda r: _short(r.name),
                "NAME": lambda r: r.display_name,
                "GROUP": lambda r: r.group,
                "STATE": lambda r: _state(run_pb2.RunState, r),
                "METRICS": lambda r: pairs({m.key: m.last for m in r.metrics}),
                "CREATED": lambda r: moment(r.create_time),
                "TOOK": lambda r: seconds_between(r.create_time, r.end_time),
            },
        )

    _register_show(group)
    _register_upkeep(group)


def _register_show(group: typer.Typer) -> None:
    @group.command("show")
    def show_run(run: str) -> None:
        """Show a run, `churn/RUN` in short, and everything that made it."""
        from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

        found = client().runs.get(run)
        show_one(
            found,
            {
                "run": found.name,
                "name": found.display_name,
                "group": found.group,
                "state": _state(run_pb2.RunState, found),
                "failure": f"{found.failure.reason} {found.failure.message}".strip(),
                "params": pairs({k: value(v) for k, v in found.params.items()}),
                "metrics": pairs({m.key: m.last for m in found.metrics}),
                "best": pairs({m.key: m.best for m in found.metrics if m.HasField("best")}),
                "tags": pairs(found.tags),
                "notes": found.notes,
                "commit": f"{found.code.commit}{' (dirty)' if found.code.dirty else ''}",
                "branch": found.code.branch,
                "source": found.code.snapshot,
                "python": found.environment.python_version,
                "packages": len(found.environment.packages),
                "machine": f"{found.environment.cpu_count} x {found.environment.cpu}",
                "gpus": ", ".join(found.environment.gpus) or "none",
                "datasets": ", ".join(f"{d.role}: {d.dataset_version}" for d in found.datasets),
                "image": found.image or "none",
                "points lost": found.dropped_point_count or "",
                "build": found.build,
                "by": found.creator,
                "created": moment(found.create_time),
                "ended": moment(found.end_time),
                "deleted": moment(found.delete_time) if found.HasField("delete_time") else "",
            },
        )


def _register_upkeep(group: typer.Typer) -> None:
    @group.command("update")
    def update(
        run: str,
        display_name: Annotated[str | None, typer.Option("--name", help="For people.")] = None,
        notes: Annotated[str | None, typer.Option(help="Markdown.")] = None,
        tag: Tags = None,
    ) -> None:
        """Change a run's name, notes or tags; tags replace all that it has."""
        tags = mapping(tag)
        _show_change(client().runs.update(run, display_name=display_name, notes=notes, tags=tags))

    @group.command("delete")
    def delete(run: str) -> None:
        """Delete a run; it can be restored until it is purged."""
        _show_change(client().runs.delete(run))

    @group.command("restore")
    def restore(run: str) -> None:
        """Take back that a run was deleted."""
        _show_change(client().runs.restore(run))

    @group.command("purge")
    def purge(run: str) -> None:
        """Remove a deleted run for ever, with its metrics."""
        from modelyard.metadata.v1 import run_service_pb2  # noqa: PLC0415

        client().runs.purge(run)
        show_one(run_service_pb2.PurgeRunResponse(), {"purged": run})


def _show_change(run: Any) -> None:
    from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

    show_one(
        run,
        {
            "run": _short(run.name),
            "name": run.display_name,
            "state": _state(run_pb2.RunState, run),
            "tags": pairs(run.tags),
            "notes": run.notes,
        },
    )


def _short(name: str) -> str:
    return f"{name.split('/')[3]}/{leaf(name)}"


def _state(enum: Any, run: Any) -> str:
    return "DELETED" if run.HasField("delete_time") else state(enum, run.state)
