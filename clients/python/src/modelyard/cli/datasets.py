"""`modelyard datasets`: looking at datasets."""

from __future__ import annotations

import typer

from modelyard.cli.context import client
from modelyard.cli.render import (
    leaf,
    moment,
    show_list,
)


def register(group: typer.Typer) -> None:
    """Add `datasets` to the command line."""

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
