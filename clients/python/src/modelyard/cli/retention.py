"""`modelyard retention`: which versions of a model go by themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import client
from modelyard.cli.render import moment, short_version, show_list, show_one

if TYPE_CHECKING:
    from modelyard.metadata.v1.retention_pb2 import Retention

_ACTIONS = ("?", "keep", "delete", "purge")

KeepDays = Annotated[
    float | None, typer.Option(min=0, max=36_500, help="Keep those of the last so many days.")
]
PurgeDays = Annotated[
    float | None, typer.Option(min=0, max=36_500, help="Purge what was deleted so long ago.")
]


def register(group: typer.Typer) -> None:
    """Add `retention` to the command line."""

    @group.command("set")
    def set_retention(
        model: str,
        keep_last: Annotated[int, typer.Option(min=1, help="Keep the newest so many.")],
        keep_days: KeepDays = None,
        purge_after_days: PurgeDays = None,
    ) -> None:
        """Let versions go that are neither new, nor young, nor aliased, nor in use."""
        made = client().retention.set(
            model,
            keep_last=keep_last,
            keep_for=_days(keep_days),
            purge_after=_days(purge_after_days),
        )
        _show(made)

    @group.command("show")
    def show_retention(model: str) -> None:
        """Show a model's rules."""
        _show(client().retention.get(model))

    @group.command("remove")
    def remove_retention(model: str) -> None:
        """Remove a model's rules: nothing goes by itself any more."""
        client().retention.remove(model)

    @group.command("apply")
    def apply_retention(
        model: str,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    ) -> None:
        """Follow a model's rules now; say what became of each version, and why."""
        show_list(
            client().retention.apply(model, dry_run=dry_run),
            {
                "VERSION": lambda v: short_version(v.version),
                "ACTION": lambda v: _ACTIONS[v.action],
                "WHY": lambda v: ", ".join(v.reasons),
            },
        )


def _show(retention: Retention) -> None:
    fields = {
        "model": retention.model,
        "keep last": str(retention.keep_last_count),
        "keep for": "-",
        "purge after": "never",
        "set by": retention.setter,
        "set": moment(retention.update_time),
    }
    if retention.HasField("keep_duration"):
        fields["keep for"] = _told(retention.keep_duration.ToTimedelta())
    if retention.HasField("purge_after_duration"):
        fields["purge after"] = _told(retention.purge_after_duration.ToTimedelta())
    show_one(retention, fields)


def _told(length: timedelta) -> str:
    return str(length).removesuffix(", 0:00:00")


def _days(days: float | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)
