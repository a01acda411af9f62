"""`modelyard compare` and `promote`: which version is better, and saying so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli.context import as_json, client
from modelyard.cli.render import leaf, short_version, show_one, show_table, text
from modelyard.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rich.text import Text

    from modelyard.metadata.v1.model_service_pb2 import CompareVersionsResponse

_GOALS = {0: "", 1: "↑", 2: "↓"}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(compare)
    app.command()(promote)


def compare(
    versions: Annotated[list[str], typer.Argument(help="churn/3 churn/7 churn@production …")],
) -> None:
    """Put the parameters and metrics of versions side by side."""
    if len(versions) < 2:
        raise InvalidArgumentError("name at least two versions", reason="INVALID_FIELD")
    comparison = client().versions.compare(versions)
    if as_json():
        from modelyard.cli.render import _dict, write_json  # noqa: PLC0415

        write_json(_dict(comparison))
        return
    show_comparison(comparison)


def show_comparison(comparison: CompareVersionsResponse) -> None:
    """Write a comparison as a table; the best value of each metric is marked."""
    from rich.text import Text  # noqa: PLC0415

    from modelyard._values import decode_value  # noqa: PLC0415

    headings = ["", *(short_version(version.name) for version in comparison.versions)]
    rows: list[list[object]] = [
        [
            Text(param.key, "bold" if param.differs else "dim"),
            *(Text(text(decode_value(v)), "" if param.differs else "dim") for v in param.values),
        ]
        for param in comparison.params
    ]
    rows += [
        [Text(f"{metric.key} {_GOALS[metric.goal]}", "cyan"), *map(_cell, metric.cells)]
        for metric in comparison.metrics
    ]
    show_table(headings, rows)


def promote(
    version: str,
    alias: str,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    if_version: Annotated[str, typer.Option(help="Only if it points here now.")] = "",
) -> None:
    """Point an alias to a version."""
    connection = client()
    found = connection.versions.resolve(version)
    model = "/".join(found.name.split("/")[:4])
    moved = connection.aliases.set(
        model, alias, version=found.name, if_version=if_version or None, reason=reason
    )
    show_one(moved, {"alias": leaf(moved.name), "version": short_version(moved.version)})


def _cell(cell: Any) -> Text:
    from rich.text import Text  # noqa: PLC0415

    if not cell.HasField("value"):
        return Text("-", "dim")
    delta = f"  ({cell.delta:+.4g})" if cell.HasField("delta") and cell.delta else ""
    return Text(
        f"{text(cell.value)}{' ★' if cell.best else ''}{delta}", "green" if cell.best else ""
    )
