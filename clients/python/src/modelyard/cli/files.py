"""`modelyard push` and `pull`: trees of files, verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import show_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelyard._transfers.progress import OnProgress, Progress

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
    cache: Annotated[
        str,
        typer.Option(envvar="MODELYARD_CACHE", help="A folder shared by all processes of a host."),
    ] = "",
    verify_key: Annotated[
        Path | None,
        typer.Option(help="Fetch only what is signed with the key of this PEM file.", exists=True),
    ] = None,
) -> None:
    """Fetch a version's files; they appear only once all of them are verified.

    Interrupted, it goes on where it was when the same is fetched to the same place again.
    """
    with _progress() as progress:
        client().artifacts.pull(
            source, destination, progress=progress, cache=cache, verify_key=verify_key
        )
    if not as_json():
        print(destination)


@contextmanager
def _progress() -> Iterator[OnProgress | None]:
    """Show a bar on a terminal, nothing else."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    console = Console(stderr=True)
    if as_json() or not console.is_terminal:
        yield None
        return
    there = TextColumn("{task.fields[there]:.0%} there already")
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), there)
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, there=0.0)

        def show(now: Progress) -> None:
            there = now.present_bytes / max(now.total_bytes, 1)
            bar.update(task, completed=now.done_bytes, total=now.total_bytes, there=there)

        yield show
