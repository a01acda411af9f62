"""`modelyard workers` and `modelyard builds limits`: what takes builds, and what holds them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.render import leaf, show_list, show_one

if TYPE_CHECKING:
    from modelyard.builder.v1 import worker_pb2

_GIB = 1024**3


def register(group: typer.Typer) -> None:
    """Add `workers` to the command line."""

    @group.command("list")
    def list_workers(
        pool: Annotated[str, typer.Option(help="Only those of this pool.")] = "",
        lost: Annotated[bool, typer.Option("--lost", help="Those of the last day too.")] = False,
    ) -> None:
        """List the workers of the installation, what they have and what they run."""
        show_list(
            client().queue.workers(pool=pool, lost=lost),
            {
                "WORKER": lambda w: w.worker,
                "POOL": lambda w: w.pool,
                "RUNS": lambda w: f"{len(w.builds)} of {w.max_builds}",
                "HAS": _has,
                "BUILDS": lambda w: ", ".join(leaf(name) for name in w.builds) or "-",
                "HEARD OF": _heard_of,
            },
        )


def limits(
    model: Annotated[str, typer.Argument(help="A model; else the whole project.")] = "",
    max_running: Annotated[
        int | None, typer.Option(min=0, help="Let at most so many builds run at a time.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Take the limit away; the default holds.")
    ] = False,
) -> None:
    """Show, or set, how many builds of a model or of the project run at a time."""
    queue = client().queue
    if default or max_running is not None:
        found = queue.set_limits(model or None, max_running=None if default else max_running)
    else:
        found = queue.limits(model or None)
    effective = found.HasField("effective_max_running_builds")
    own = found.HasField("max_running_builds")
    source = "" if own or not effective else " (by default)"
    show_one(
        found,
        {
            "limits of": found.resource,
            "at most": f"{found.effective_max_running_builds}{source}" if effective else "any",
            "running": found.running_builds,
            "queued": found.queued_builds,
        },
    )


def _has(worker: worker_pb2.Worker) -> str:
    total = worker.total
    parts = (
        (total.cpu_cores, f"{total.cpu_cores:g} cores"),
        (total.memory_bytes, f"{total.memory_bytes / _GIB:.3g} GiB"),
        (total.disk_bytes, f"{total.disk_bytes / _GIB:.3g} GiB disk"),
    )
    return ", ".join(text for value, text in parts if value) or "-"


def _heard_of(worker: worker_pb2.Worker) -> str:
    ago = datetime.now(UTC) - worker.sign_time.ToDatetime(UTC)
    return f"{max(0, ago.total_seconds()):.0f} s ago{'' if worker.alive else ', lost'}"
