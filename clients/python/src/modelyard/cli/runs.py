"""`modelyard runs`: looking at runs."""

from __future__ import annotations

import typer

from modelyard.cli.context import client
from modelyard.cli.options import Filter, Order
from modelyard.cli.render import (
    leaf,
    moment,
    pairs,
    show_list,
    show_one,
    state,
    value,
)


def register(group: typer.Typer) -> None:
    """Add `runs` to the command line."""

    @group.command("list")
    def list_runs(model: str = "", filter_: Filter = "", order_by: Order = "") -> None:
        """List runs, newest first."""
        from modelyard.metadata.v1 import run_pb2  # noqa: PLC0415

        show_list(
            client().runs.search(model=model or None, filter=filter_, order_by=order_by),
            {
                "RUN": lambda r: f"{r.name.split('/')[3]}/{leaf(r.name)}",
                "STATE": lambda r: state(run_pb2.RunState, r.state),
                "METRICS": lambda r: pairs({m.key: m.last for m in r.metrics}),
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
                "params": pairs({k: value(v) for k, v in found.params.items()}),
                "metrics": pairs({m.key: m.last for m in found.metrics}),
                "tags": pairs(found.tags),
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
