"""`modelyard push` and `pull`: trees of files, verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import show_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelyard._push import Progress

from contextlib import contextmanager


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(push)
    app.command()(pull)


def push(path: Annotated[Path, typer.Argument(help="A file or a folder.")]) -> None:
    """Store a file or a folder; only what is not there yet is sent."""
    with _progress() as progress:
        artifact = client().artifacts.push(path, progress=progress)
    show_one(
        artifact,
        {"artifact": artifact.name, "files": artifact.file_count, "bytes": artifact.size_bytes},
    )


def pull(
    source: Annotated[str, typer.Argument(help="A version (churn/7) or an artifact.")],
    destination: Path,
) -> None:
    """Fetch a version's files; they appear only once all of them are verified."""
    with _progress() as progress:
        client().artifacts.pull(source, destination, progress=progress)
    if not as_json():
        print(destination)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """Show a bar on a terminal, nothing else."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    console = Console(stderr=True)
    if as_json() or not console.is_terminal:
        yield None
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
