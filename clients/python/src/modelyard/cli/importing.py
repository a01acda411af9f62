"""`modelyard import`: bringing over what other registries keep."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.groups import Group
from modelyard.cli.render import clean, write_json
from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from modelyard.importing.mlflow import Summary

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add `import` to the command line."""
    group = typer.Typer(
        cls=Group,
        help="Bring over what other registries keep.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(lambda: None)
    group.command("mlflow")(import_mlflow)
    app.add_typer(group, name="import")


def import_mlflow(
    uri: Annotated[str, typer.Option(help="The tracking server, http://host:5000.")],
    experiment: Annotated[
        list[str] | None, typer.Option(help="Just this experiment; repeatable.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Just this registered model; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would be imported.")] = False,
) -> None:
    """Import runs, models, versions and aliases from an MLflow server; again goes on."""
    try:
        from modelyard.importing.mlflow import (  # noqa: PLC0415 - an extra
            Importer,
            MlflowError,
            MlflowServer,
        )
    except ModuleNotFoundError as error:
        raise ModelyardError("install it first: pip install 'modelyard[mlflow]'") from error
    try:
        with MlflowServer(uri) as server:
            importer = Importer(server, client(), report=_report, is_dry_run=dry_run)
            summary = importer.run(experiments=experiment or (), models=model or ())
    except MlflowError as error:
        raise ModelyardError(str(error)) from error
    _show(summary, dry_run=dry_run)
    if summary.problems:
        raise typer.Exit(1)


def _report(text: str) -> None:
    print(clean(text), file=sys.stderr, flush=True)


def _show(summary: Summary, *, dry_run: bool) -> None:
    if as_json():
        write_json(asdict(summary))
        return
    done = "would be imported" if dry_run else "imported"
    print(f"{done}: {_counts(summary.imported)}")
    print(f"there already: {_counts(summary.present)}")
    shortened = [f"{key}, {count:,} times" for key, count in summary.shortened.most_common()]
    _show_lines("tags shortened or left out", shortened)
    _show_lines("not imported", summary.problems)


def _show_lines(title: str, lines: list[str]) -> None:
    if not lines:
        return
    print(f"{title}: {len(lines)}")
    for line in lines[:_SHOWN]:
        print(f"  {clean(line)}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN} more")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing"
